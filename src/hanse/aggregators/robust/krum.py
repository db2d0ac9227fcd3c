"""`Krum` and `MultiKrum`: the rows that lie nearest to their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Krum:
    """The one row that lies nearest to its n − f − 2 nearest neighbours.

        s(i) = Σ_{j → i} ‖x_i − x_j‖²        over the n − f − 2 other rows nearest to i; the row of the least s(i)

    Of rows with the same score the first one in the clients' order is taken, as in the paper.

    References:
      Blanchard, El Mhamdi, Guerraoui, Stainer 2017, "Machine learning with adversaries: Byzantine tolerant gradient
      descent", NeurIPS, section 4.
    """

    def fewest(self, attackers: int) -> int:
        """2f + 3."""
        return 2 * attackers + 3

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        return _mean_of(rows, best(krum_scores(rows.squared_distances, given.attackers), 1))


@dataclass(frozen=True, kw_only=True)
class MultiKrum:
    """The mean of the rows that Krum scores best.

    With `selected` = 1 it is `Krum`.

    Args:
      selected: m, in [1, n − f]; None for n − f.

    References:
      Blanchard et al. 2017 (see `Krum`), section 5, where m is left open.
    """

    selected: int | None = None

    def __post_init__(self) -> None:
        if self.selected is not None and self.selected < 1:
            raise SettingError("selected", f"must be at least 1, or nothing for n − f, got {self.selected}")

    def fewest(self, attackers: int) -> int:
        """2f + 3, and no fewer than m + f: among more than n − f rows there would always be an attacker's."""
        return max(2 * attackers + 3, (self.selected or 0) + attackers)

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        count = self.selected or len(rows) - given.attackers
        return _mean_of(rows, best(krum_scores(rows.squared_distances, given.attackers), count))


def krum_scores(squared_distances: np.ndarray, attackers: int) -> np.ndarray:
    """`[n]`: of each row the sum of squared distances to its n − f − 2 nearest others, of one at least.

    Args:
      squared_distances: `[n, n]`, zeros on the diagonal.
      attackers: f.

    >>> krum_scores(np.array([[0.0, 1, 9, 16], [1, 0, 4, 9], [9, 4, 0, 1], [16, 9, 1, 0]]), 0)
    array([10.,  5.,  5., 10.])
    """
    nearest = max(1, len(squared_distances) - attackers - 2)
    return np.asarray(np.sort(squared_distances, axis=1)[:, 1 : 1 + nearest].sum(axis=1))  # the first is the row itself


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the least scores, in ascending order of position; of equal scores the first ones count."""
    return np.sort(np.argsort(scores, kind="stable")[:count])


def _mean_of(rows: Rows, chosen: np.ndarray) -> Combined:
    weights = np.zeros(len(rows))
    weights[chosen] = 1 / len(chosen)
    return Combined(vector=rows.combined(weights), weights=weights)
