"""`FreeRider`: clients that do not train and want the model all the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import as_sent
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class FreeRider:
    """Each member sends the model back as it came, an update of zeros, or noise that looks like training.

    In round t the noise is `N(0, (noise · t^−decay)²)` in each element, for honest updates shrink as a model converges.

    Args:
      noise: σ ≥ 0; 0 sends zeros (the plain free-rider).
      decay: γ ≥ 0; 0 for noise that stays the same.

    References:
      Fraboni, Vidal, Lorenzi 2021, "Free-rider attacks on model aggregation in federated learning", AISTATS: plain
      free-riders, and disguised ones with additive noise of standard deviation φ(t) = σ t^−γ.
      Lin, Du, Liu 2019, "Free-riders in federated learning: attacks and defenses", arXiv:1911.12560.
    """

    noise: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("noise", self.noise), ("decay", self.decay)):
            if not 0 <= value < math.inf:
                raise SettingError(name, f"must be at least 0 and finite, got {value}")

    @property
    def knows(self) -> Knowledge:
        """Its own update, of which it only needs the shape."""
        return "own"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        stddev = self.noise * float(max(1, seen.round)) ** -self.decay
        if not stddev:
            return [np.zeros_like(own) for own in seen.own]
        return [as_sent(seen.rng.normal(0.0, stddev, size=own.shape), own) for own in seen.own]
