"""`IPM`: an update whose inner product with the honest mean is negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import as_sent, known_rows, mean_of
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class IPM:
    """All members send the honest mean turned round: `−epsilon · mean`.

    A small ε brings the sent vectors close to honest ones that are spread widely around a small mean, which Krum then
    chooses; a large one pushes the median and trimmed means over to the other side.

    Args:
      epsilon: ε > 0.

    References:
      Xie, Koyejo, Gupta 2019, "Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation", UAI.
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise SettingError("epsilon", f"must be more than 0 and finite, got {self.epsilon}")

    @property
    def knows(self) -> Knowledge:
        """All clients' updates."""
        return "all"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`; where no honest update is known, the mean of the members' own."""
        vector = -self.epsilon * mean_of(known_rows(seen))
        return [as_sent(vector, own) for own in seen.own]
