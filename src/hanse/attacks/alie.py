"""`ALIE`: a little is enough, if many do it together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import as_sent, deviation_of, known_rows, mean_of
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class ALIE:
    """All members send the mean of the updates they know, less z standard deviations: `mean − z · std`, by element.

    z is as large as it may be for the sent vector to lie nearer to the mean than enough honest ones, so that rules that
    look for outliers take honest updates for them. Of n clients and m members, s others make up a majority with them:

        s = ⌊n/2 + 1⌋ − m        z = Φ⁻¹((n − m − s) / (n − m))

    Deviations from the paper: s is taken to be 1 at least, which matters where members are a majority already; z is
    never negative. A single member that knows itself alone has no standard deviation, and sends what it trained.

    Args:
      z: ≥ 0; None for the largest that hides, as above.
      omniscient: Mean and standard deviation of the honest clients' updates; else of the members' own, as in the paper.

    References:
      Baruch, Baruch, Goldberg 2019, "A little is enough: circumventing defenses for distributed learning", NeurIPS,
      the attack that prevents convergence, and its equation for z.
    """

    z: float | None = None
    omniscient: bool = False

    def __post_init__(self) -> None:
        if self.z is not None and not 0 <= self.z < math.inf:
            raise SettingError("z", f"must be at least 0 and finite, got {self.z}")

    @property
    def knows(self) -> Knowledge:
        """All clients' updates where it is omniscient, else all members'."""
        return "all" if self.omniscient else "members"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        z = largest_hidden(seen.num_clients, len(seen.members)) if self.z is None else self.z
        rows = known_rows(seen)
        vector = mean_of(rows) - z * deviation_of(rows)
        return [as_sent(vector, own) for own in seen.own]


def largest_hidden(num_clients: int, num_members: int) -> float:
    """z for n clients of which m attack.

    >>> round(largest_hidden(50, 12), 3), round(largest_hidden(50, 24), 3)
    (0.336, 1.426)
    """
    others = num_clients - num_members
    supporters = max(1, num_clients // 2 + 1 - num_members)
    share = (others - supporters) / others if others > 0 else 0.0
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0
