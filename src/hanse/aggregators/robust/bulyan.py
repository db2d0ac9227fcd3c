"""`Bulyan`: rows that Krum selects one after another, and of each element the mean of the values near the median."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.krum import krum_scores
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound


@dataclass(frozen=True, kw_only=True)
class Bulyan:
    """θ = n − 2f rows by Krum, one after another; then of each element the mean of the β = θ − 2f nearest the median.

    Krum's choice is taken out of the rows and Krum asked again, until there are θ. That keeps an attacker from moving a
    single element by as much as all elements together differ.

    Of equal scores the first one in the clients' order is taken. Of values equally near the median the smaller ones
    are taken (the paper leaves that open).

    As rows grow fewer, so do the neighbours that a score counts: m − f − 2 of m rows, and one at least. The last
    selections are made among fewer rows than Krum's own bound asks; the second step is there for that.

    References:
      El Mhamdi, Guerraoui, Rouault 2018, "The hidden vulnerability of distributed learning in Byzantium", ICML,
      section 4.
    """

    def fewest(self, attackers: int) -> int:
        """4f + 3."""
        return 4 * attackers + 3

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        count = len(rows) - 2 * given.attackers
        chosen = _one_after_another(rows.squared_distances, given.attackers, count)
        vector = np.empty(rows.dimension)
        for columns, block in rows.blocks():
            vector[columns] = mean_near_median(block[chosen], count - 2 * given.attackers)
        return Combined(vector=vector)


def _one_after_another(squared_distances: np.ndarray, attackers: int, count: int) -> np.ndarray:
    left = np.arange(len(squared_distances))
    chosen = []
    for _ in range(count):
        at = int(np.argmin(krum_scores(squared_distances[np.ix_(left, left)], attackers)))
        chosen.append(left[at])
        left = np.delete(left, at)
    return np.sort(chosen)


def mean_near_median(block: np.ndarray, count: int) -> np.ndarray:
    """`[w]` in float64: of each column the mean of the `count` values nearest its median.

    Of two that are equally near the smaller counts.

    Args:
      block: `[m, w]`.
      count: In [1, m].

    >>> mean_near_median(np.array([[9.0], [1.0], [2.0], [4.0], [5.0]]), 3)
    array([3.66666667])
    """
    ordered = np.sort(np.ascontiguousarray(block.T), axis=1).astype(np.float64)
    rows = ordered.shape[1]
    middle = (ordered[:, (rows - 1) // 2] / 2 + ordered[:, rows // 2] / 2)[:, None]
    # they stand side by side: the window moves up while the value it would lose is farther than the one it would gain
    farther = middle - ordered[:, : rows - count] > ordered[:, count:] - middle
    start = np.count_nonzero(farther, axis=1)[:, None]
    place = np.arange(rows)
    inside = (place >= start) & (place < start + count)
    return np.asarray(np.add.reduce(ordered, axis=1, where=inside) / count)
