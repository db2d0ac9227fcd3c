"""`Boosted`: members send a multiple of what they trained on poisoned examples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import multiple
from hanse.core.errors import SettingError


class Boosted:
    """Makes an attack on examples heavier in the mean than its members are many.

    Attributes:
      boost: What a member's update is multiplied by, > 0; 1 leaves updates as they are.
    """

    boost: float

    def check_boost(self) -> None:
        """Raises `SettingError` where `boost` is no factor."""
        if not 0 < self.boost < math.inf:
            raise SettingError("boost", f"must be more than 0 and finite, got {self.boost}")

    @property
    def knows(self) -> Knowledge:
        """Its own update."""
        return "own"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        return list(seen.own) if self.boost == 1 else [multiple(self.boost, own) for own in seen.own]
