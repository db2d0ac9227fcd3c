"""`Average`: the plain mean, to show what no defence does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound


@dataclass(frozen=True, kw_only=True)
class Average:
    """The mean of all rows, each counting alike.

    It holds against no attacker: one row moves it as far as it likes. To see what an attack does to it, suppose none
    (`attackers` = 0) and let there be some.
    """

    def fewest(self, attackers: int) -> int | None:
        """1 without attackers; None with any."""
        return None if attackers else 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        weights = np.full(len(rows), 1 / len(rows))
        return Combined(vector=rows.combined(weights), weights=weights)
