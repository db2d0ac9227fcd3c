"""Distributed differential privacy: each client adds a share of the noise, and only sums have enough of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PrivacyError, SettingError
from hanse.core.protocols import Clips
from hanse.pipeline.integer_noise import IntegerNoise, Kind
from hanse.privacy.events import Event

WRAP_PROBABILITY = 1e-6
"""The modulus is so large that an element of a sum exceeds it with at most this probability."""

BLOCK = 16384
"""Most elements that are rotated together: the more, the less room one client's largest element can take."""


@dataclass(frozen=True, kw_only=True)
class DistributedNoise:
    """Noise over the whole numbers, in shares: each client adds `1/n` of the variance to its own clipped update.

    Put behind the clip: a rotation, rounding to multiples of γ under the condition that the norm stays within a bound,
    a share of noise, and the residue modulo 2ᵇ. The server adds residues up and takes all of it back. With a cohort of
    K clients, n = K - ⌊max_dropout · K⌋ of them give the noise that is accounted for; a round with fewer replies is
    abandoned, and what more replies add is not claimed. The noise of the sum of n has standard deviation z C.

    It is private towards who sees sums alone. The plain `sum` shows the server each reply, whose noise is a share.

    Args:
      noise: Which noise: `discrete_gaussian`, whose sum is as private as a Gaussian to many digits, or `skellam`, which
        stays what it is when it is added up.
      noise_multiplier: z, standard deviation of n shares over the clip norm, > 0. None takes what the budget allows.
      bits: b, 8 to 24: residues modulo 2ᵇ. γ follows from it, from the clip, the cohort and the noise.
      max_dropout: Share of a cohort that may fail, or tell the server its noise, in [0, 1). Clients add more for it.
      beta: Probability β, in (0, 1), of drawing a vector's rounding again, at most; a smaller one lets more norm pass.
      secret_cohorts: Whether those towards whom it is private do not know who took part, so that sampling makes a round
        cost less. The server knows; in a federation it is never claimed.

    References:
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387 (discrete Gaussian; section 5 for β); Agarwal, Kairouz, Liu 2021,
      arXiv:2110.04995 (Skellam).
    """

    noise: Kind = "discrete_gaussian"
    noise_multiplier: float | None = None
    bits: int = 18
    max_dropout: float = 0.0
    beta: float = math.exp(-0.5)
    secret_cohorts: bool = False

    def __post_init__(self) -> None:
        if self.noise not in ("discrete_gaussian", "skellam"):
            raise SettingError("noise", f'must be "discrete_gaussian" or "skellam", got "{self.noise}"')
        if self.noise_multiplier is not None and not 0 < self.noise_multiplier < math.inf:
            raise SettingError("noise_multiplier", f"must be above 0, got {self.noise_multiplier}")
        if not 8 <= self.bits <= 24:
            raise SettingError("bits", f"must be 8 to 24, got {self.bits}")
        if not 0 <= self.max_dropout < 1:
            raise SettingError("max_dropout", f"must be in [0, 1), got {self.max_dropout}")
        if not 0 < self.beta < 1:
            raise SettingError("beta", f"must be above 0 and below 1, got {self.beta}")

    @property
    def in_shares(self) -> bool:
        """True: clients add the noise, and the server needs to see no single update."""
        return True

    def with_noise(self, noise_multiplier: float) -> DistributedNoise:
        """The same with noise multiplier z."""
        return replace(self, noise_multiplier=noise_multiplier)

    def event(self, told: Sequence[float]) -> Event:
        """Refused: what a sum costs depends on the cohort."""
        raise _not_central()

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        """Refused: noise is in the sum already."""
        raise _not_central()

    def surely(self, cohort: int) -> int:
        """n, how many clients' noise is certain in a sum that is opened."""
        return cohort - math.floor(self.max_dropout * cohort + 1e-9)

    def share(self, norm: float, cohort: int, dimension: int, block: int) -> IntegerNoise:
        """What each client does to its rotated vector.

        Args:
          norm: C, in the unit of the delta.
          cohort: K, ≥ 1.
          dimension: Elements of the rotated vector.
          block: Elements that were rotated together.

        Raises:
          PrivacyError: The noise is not known, or 2ᵇ is too small for any sum of the cohort.
        """
        if self.noise_multiplier is None:
            raise PrivacyError(
                "the noise of DistributedNoise was never settled",
                hint="give it a noise_multiplier, or the job a [privacy] budget",
            )
        surely = self.surely(cohort)
        stddev = self.noise_multiplier * norm / math.sqrt(surely)
        grid = granularity(self, norm=norm, cohort=cohort, stddev=stddev, block=block)
        return IntegerNoise(
            kind=self.noise,
            granularity=grid,
            stddev=stddev / grid,
            norm_squared=rounded_norm_squared(norm / grid, dimension, self.beta),
            bits=self.bits,
        )


def rounded_norm_squared(norm: float, dimension: int, beta: float) -> int:
    """The bound on the squared L2 norm of a vector of norm c that was rounded at random.

        min( (c + √d)²,   c² + d/4 + √(2 ln(1/β)) (c + √d / 2) )

    Args:
      norm: c, in units of the grid.
      dimension: d.
      beta: A vector's rounding fails the second of these with at most this probability.

    References:
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387, algorithm 1 and proposition 26.

    >>> rounded_norm_squared(100.0, 16, math.exp(-0.5))
    10106
    """
    root = math.sqrt(dimension)
    always = (norm + root) ** 2
    mostly = norm**2 + dimension / 4 + math.sqrt(2 * math.log(1 / beta)) * (norm + root / 2)
    return math.floor(min(always, mostly))


def granularity(mechanism: DistributedNoise, *, norm: float, cohort: int, stddev: float, block: int) -> float:
    """γ: the finest unit with which an element of a sum stays within ±(2ᵇ⁻¹ - 1), but for `WRAP_PROBABILITY`.

    The sum of K vectors of norm C is at most K C long, and a rotation in blocks of B with random signs makes its
    elements sub-Gaussian with variance (K C)² / B. Noise of all K shares adds K σ². Rounding moves an element by less
    than K units, always. So with k from the tail's probability, for the discrete Gaussian √(2 ln(2 / p)),

        γ (2ᵇ⁻¹ - 1 - K)  =  k √((K C)² / B + K σ²)

    Skellam noise has longer tails, and k is so much larger that the bound of Chernoff gives p.

    Args:
      mechanism: Says b and which noise.
      norm: C.
      cohort: K.
      stddev: σ of one share, in the unit of C.
      block: B.

    Raises:
      PrivacyError: The modulus is too small even for the rounding.

    References:
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387, section 4 and theorem 23 (there with a number of deviations in place
      of a probability, and one block). Canonne, Kamath, Steinke 2020, arXiv:2004.00010, corollary 17 (tails).
    """
    room = (1 << (mechanism.bits - 1)) - 1 - cohort
    if room < 1:
        raise PrivacyError(
            f"whole numbers of {cohort:,} clients do not add up in {mechanism.bits} bits",
            hint=f"use bits = {(cohort + 2).bit_length() + 1} or more, and each bit beyond halves the rounding",
        )
    spread, noise = cohort * norm / math.sqrt(block), math.sqrt(cohort) * stddev
    tail = math.log(WRAP_PROBABILITY / 2)
    deviations = math.sqrt(-2 * tail)
    while True:
        grid = deviations * math.hypot(spread, noise) / room
        if mechanism.noise == "discrete_gaussian":
            return grid
        # Chernoff with t = room / variance: E exp(t y) of Skellam noise of variance μ is exp(μ (cosh t - 1))
        s, mu = (spread / grid) ** 2, (noise / grid) ** 2
        t = min(room / (s + mu), 50.0)
        if mu * (math.cosh(t) - 1) + s * t * t / 2 - t * room <= tail:
            return grid
        deviations *= 1.001


def _not_central() -> PrivacyError:
    return PrivacyError(
        "noise in shares is added by clients: the server has none to add, and what it costs depends on the cohort",
        hint="run it by a job with a [privacy] table, or by hanse.simulation",
    )
