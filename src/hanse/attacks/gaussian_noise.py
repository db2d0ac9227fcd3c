"""`GaussianNoise`: noise instead of an update, or on top of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import as_sent
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Each member sends `N(0, stddev²)` in each element, or its own update plus that.

    Args:
      stddev: > 0, in the unit of the update.
      added: To its own update, which hides it better.

    References:
      Blanchard, El Mhamdi, Guerraoui, Stainer 2017, "Machine learning with adversaries: Byzantine tolerant gradient
      descent", NeurIPS, its experiments' Gaussian workers, with a standard deviation of 200.
    """

    stddev: float = 1.0
    added: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.stddev < math.inf:
            raise SettingError("stddev", f"must be more than 0 and finite, got {self.stddev}")

    @property
    def knows(self) -> Knowledge:
        """Its own update."""
        return "own"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        sent = []
        for own in seen.own:
            noise = seen.rng.normal(0.0, self.stddev, size=own.shape)
            sent.append(as_sent(own + noise if self.added else noise, own))
        return sent
