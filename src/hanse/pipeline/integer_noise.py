"""Rounds a clipped vector to whole numbers at random and adds the client's share of noise to them, modulo 2ᵇ.

One share is little noise: what a client sends is hardly private by itself. The sum of all clients' is, towards whoever
sees nothing but the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import NonFiniteUpdateError, PipelineError, PrivacyError, SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Stage
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import flat_spec, in_this_round, require_finite, require_layout
from hanse.pipeline.residues import as_residues, centred, most_bits, residue_type
from hanse.privacy.discrete_noise import discrete_gaussian, rational_variance
from hanse.privacy.events import DiscreteGaussian, Event, Skellam
from hanse.privacy.random_source import KEY_BYTES, KeyedRandomness
from hanse.privacy.skellam_noise import skellam

Kind = Literal["discrete_gaussian", "skellam"]
"""Which noise over the whole numbers."""

_TRIES = 1000  # one succeeds with probability 1 - β or more


@dataclass(frozen=True, kw_only=True)
class IntegerNoise:
    """`z = (round(x / γ) + y) mod 2ᵇ`, and on the server `γ · centred(Σ z mod 2ᵇ)`.

    Each element is rounded to one of its two neighbours, right on average, and all of them anew until the norm is
    within a bound: that is what one client can move the sum by. y is the client's share of the noise. Nothing else that
    was measured on the client's data is sent along.

    A job does not name it: `hanse.rounds.privacy.distributed` settles its numbers.

    Args:
      kind: Which noise.
      granularity: γ, the unit of the whole numbers, in the unit of the delta, > 0.
      stddev: Standard deviation of one share, in units of γ, ≥ 0.
      norm_squared: Largest squared L2 norm of a rounded vector, in squared units of γ, ≥ 1.
      bits: b, 2 to 24.

    References:
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387, algorithms 1 and 2; Agarwal, Kairouz, Liu 2021, arXiv:2110.04995,
      section 4.
    """

    kind: Kind
    granularity: float
    stddev: float
    norm_squared: int
    bits: int
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 24:
            raise SettingError("bits", f"must be 2 to 24, got {self.bits}")
        if not 0 < self.granularity < math.inf:
            raise SettingError("granularity", f"must be above 0, got {self.granularity}")

    @property
    def additive(self) -> bool:
        """True: all clients take the same steps."""
        return True

    @property
    def isometric(self) -> bool:
        """True: the noise that is in the aggregate is its own, and it says how much."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """True: weighed whole numbers are none, and how many examples a client has is not told."""
        return True

    @property
    def needs_sum(self) -> bool:
        """True: a mean of residues means nothing."""
        return True

    @property
    def residue_bits(self) -> int:
        """b: encodings are whole numbers modulo 2ᵇ."""
        return self.bits

    def in_round(self, given: StageRound) -> Stage:
        """With the layout to decode to."""
        if self.bits > most_bits(given.cohort):
            raise PipelineError(
                f"a sum of {given.cohort:,} residues of {self.bits} bits is not exact in float64",
                hint=f"use bits = {most_bits(given.cohort)} or fewer",
            )
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """Unsigned integers of 8, 16 or 32 bits."""
        return flat_spec("residues", spec.size, residue_type(self.bits))

    def release_of_sum(self, num_shares: int, dimension: int) -> Event:
        """What a sum is, for an accountant: so much noise is surely in it.

        Args:
          num_shares: Clients that surely added their share, ≥ 1; the adversary knows the noise of none of them.
          dimension: Elements.
        """
        l2 = math.nextafter(math.sqrt(self.norm_squared), math.inf)
        l1 = min(float(self.norm_squared), math.nextafter(l2 * math.sqrt(dimension), math.inf))
        if self.kind == "skellam":
            return Skellam(variance=num_shares * self.stddev**2, l2_sensitivity=l2, l1_sensitivity=l1)
        return DiscreteGaussian(
            stddev=self.stddev, l2_sensitivity=l2, l1_sensitivity=l1, dimension=dimension, num_shares=num_shares
        )

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half.

        Raises:
          NonFiniteUpdateError: The update holds NaN or an infinity.
          PrivacyError: The vector is longer than the norm that noise was made for, or has others beside it.
        """
        given = in_this_round(self._given, self)
        require_finite(update)
        if update.extras:
            raise PrivacyError(
                f"round {update.round}: client `{update.client}`: {sorted(update.extras)} would be sent beside the "
                "delta without noise; nothing was sent",
                hint='use a strategy that uploads a delta alone, or mechanism = { use = "gaussian" }',
            )
        whole = self._rounded(update, rng)
        whole += self._share(len(whole), rng)
        residues = Params(self.encoded_spec(given.spec), as_residues(whole, self.bits))
        return Update(client=update.client, round=update.round, delta=residues, num_examples=1, num_steps=1)

    def decode(self, update: Update) -> Update:
        """The server's half for one reply: little noise, and no privacy to speak of."""
        given = in_this_round(self._given, self)
        residues = require_layout(update, self.encoded_spec(given.spec))
        whole = centred(residues, self.bits) * self.granularity
        return replace(update, delta=Params(given.spec, whole.astype(given.spec.dtype)))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the sum."""
        given = in_this_round(self._given, self)
        total = centred(aggregate.delta.numpy(), self.bits) * self.granularity
        noise = self.granularity * self.stddev * math.sqrt(aggregate.num_clients)
        delta = Params(replace(given.spec, dtype="float64"), total)
        return replace(aggregate, delta=delta, noise_stddev=noise)

    def _rounded(self, update: Update, rng: np.random.Generator) -> np.ndarray:
        """The vector in units of γ, rounded at random under the condition that its norm is within the bound."""
        scaled = update.delta.numpy().astype(np.float64) / self.granularity
        if not np.dot(scaled, scaled) <= self.norm_squared * (1 + 1e-6):
            raise PrivacyError(
                f"round {update.round}: client `{update.client}`: its delta's norm is "
                f"{self.granularity * float(np.linalg.norm(scaled)):.4g}, and noise was made for at most "
                f"{self.granularity * math.sqrt(self.norm_squared):.4g}; nothing was sent"
            )
        for _ in range(_TRIES):
            whole = rng.random(len(scaled))
            whole += scaled
            rounded: np.ndarray = np.floor(whole, out=whole).astype(np.int64)
            if (
                int(np.dot(rounded, rounded)) <= self.norm_squared
            ):  # exact: the bound holds, whatever was computed before
                return rounded
        raise NonFiniteUpdateError(
            f"round {update.round}: client `{update.client}`: its delta can't be rounded within a norm of "
            f"{self.granularity * math.sqrt(self.norm_squared):.4g}; nothing was sent"
        )

    def _share(self, size: int, rng: np.random.Generator) -> np.ndarray:
        if not self.stddev:
            return np.zeros(size, dtype=np.int64)
        source = KeyedRandomness(rng.bytes(KEY_BYTES), "share of noise", is_secret=True)
        if self.kind == "skellam":
            return skellam(self.stddev**2, size, source)
        return discrete_gaussian(rational_variance(self.stddev), size, source)
