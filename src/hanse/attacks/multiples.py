"""`SignFlip` and `Scaled`: multiples of what honest training gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import multiple
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """Each member sends its own update turned round: `−scale · own`.

    Args:
      scale: > 0; the paper's experiments use larger ones too, which norms give away.

    References:
      Li, Xu, Chen, Giannakis, Ling 2019, "RSA: Byzantine-robust stochastic aggregation methods for distributed
      learning from heterogeneous datasets", AAAI, its experiments' sign-flipping attacks.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise SettingError("scale", f"must be more than 0 and finite, got {self.scale}")

    @property
    def knows(self) -> Knowledge:
        """Its own update."""
        return "own"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        return [multiple(-self.scale, own) for own in seen.own]


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Each member sends a multiple of its own update: `factor · own`, to count for more than others.

    Args:
      factor: Any finite number.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor):
            raise SettingError("factor", f"must be finite, got {self.factor}")

    @property
    def knows(self) -> Knowledge:
        """Its own update."""
        return "own"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        return [multiple(self.factor, own) for own in seen.own]
