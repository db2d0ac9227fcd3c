"""Quantisation to whole numbers modulo 2ᵇ, whose sums mean something: what secure sums add up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError, SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Stage
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import flat_spec, in_this_round, require_finite, require_layout
from hanse.pipeline.residues import as_residues, centred, most_bits, residue_type

_BLOCK = 1 << 13


@dataclass(frozen=True, kw_only=True)
class Modular:
    """Elements of at most R as whole numbers modulo 2ᵇ, in steps so fine that n clients' sum does not wrap.

    With m = ⌊(2ᵇ⁻¹ - 1) / n⌋ steps to either side for a cohort of n, s = R / m and u uniform in [0, 1):

        q_i = ⌊min(max(x_i, -R), R) / s + u_i⌋ mod 2ᵇ        Σ x̂_i = s · centred(Σ q_i mod 2ᵇ)

    with residues centred to [-2ᵇ⁻¹, 2ᵇ⁻¹). The step is the same for all, so it is additive.

    Args:
      bits: b, 2 to 32.
      range: R, largest magnitude of an element, in the unit of the delta, > 0; larger ones are cut.

    References:
      Bonawitz et al. 2019, arXiv:1912.00131, section 3.1 (quantisation for secure aggregation).
    """

    bits: int = 16
    range: float
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise SettingError("bits", f"must be 2 to 32, got {self.bits}")
        if not 0 < self.range < math.inf:
            raise SettingError("range", f"must be above 0, got {self.range}")

    @property
    def additive(self) -> bool:
        """True: all clients take the same steps."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """True: weighed whole numbers are none."""
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
        """With the step that this round's cohort allows.

        Raises:
          PipelineError: The modulus is too small for the cohort.
        """
        if self._most(given.cohort) < 1:
            needed = given.cohort.bit_length() + 1
            raise PipelineError(
                f"a sum of {given.cohort:,} clients' whole numbers does not fit in {self.bits} bits",
                hint=f"use bits = {needed} or more; each bit beyond halves the rounding",
            )
        if self.bits > most_bits(given.cohort):
            raise PipelineError(
                f"a sum of {given.cohort:,} residues of {self.bits} bits is not exact in float64",
                hint=f"use bits = {most_bits(given.cohort)} or fewer",
            )
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """Unsigned integers of 8, 16 or 32 bits."""
        return flat_spec("residues", spec.size, residue_type(self.bits))

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        given = in_this_round(self._given, self)
        require_finite(update)
        residues = self._residues(update.delta.numpy(), self._most(given.cohort), rng)
        return replace(update, delta=Params(self.encoded_spec(given.spec), residues))

    def decode(self, update: Update) -> Update:
        """The server's half for one reply."""
        given = in_this_round(self._given, self)
        residues = require_layout(update, self.encoded_spec(given.spec))
        return replace(update, delta=Params(given.spec, self._centred(residues).astype(given.spec.dtype)))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the sum."""
        given = in_this_round(self._given, self)
        total = self._centred(aggregate.delta.numpy())
        return replace(aggregate, delta=Params(replace(given.spec, dtype="float64"), total))

    def _residues(self, vector: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
        """q of all elements, block by block, so that what is in between stays in the cache."""
        found = np.empty(len(vector), dtype=residue_type(self.bits))
        steps = np.nextafter(most / self.range, 0)  # so that x = R never passes the last step
        for start in range(0, len(vector), _BLOCK):
            whole = vector[start : start + _BLOCK].astype(np.float64)
            np.clip(whole, -self.range, self.range, out=whole)
            whole *= steps
            whole += rng.random(len(whole), dtype=np.float32)
            np.floor(whole, out=whole)
            found[start : start + _BLOCK] = as_residues(whole, self.bits)
        return found

    def _centred(self, residues: np.ndarray) -> np.ndarray:
        """Sums of residues, exact in float64, as numbers in the unit of the delta."""
        return centred(residues, self.bits) * (self.range / self._most(in_this_round(self._given, self).cohort))

    def _most(self, cohort: int) -> int:
        return ((1 << (self.bits - 1)) - 1) // cohort
