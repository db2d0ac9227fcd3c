"""Rules that look at each element by itself: the median and the trimmed mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound


@dataclass(frozen=True, kw_only=True)
class Median:
    """The median of each element; of an even number of rows, the mean of the two in the middle.

    It holds as long as more than half of the rows are honest: each element then lies between two honest ones.

    References:
      Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning: towards optimal statistical rates",
      ICML, definition 1.
    """

    def fewest(self, attackers: int) -> int:
        """2f + 1."""
        return 2 * attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        vector = np.empty(rows.dimension)
        for columns, block in rows.blocks():
            vector[columns] = np.median(block, axis=0)
        return Combined(vector=vector)
