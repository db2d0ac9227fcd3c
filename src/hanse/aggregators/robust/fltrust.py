"""`FLTrust`: rows count by how far they point the way of the server's own update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.core.errors import PipelineError

_NOTHING = 1e-100  # of a norm: float32 has none so small but 0, and in float64 its inverse and square stay in range


@dataclass(frozen=True, kw_only=True)
class FLTrust:
    """The mean of the rows, scaled to the norm of the server's own update and weighted by their cosine to it.

        TS_i = max(0, cos(x_i, g_0))        Σ_i TS_i (‖g_0‖ / ‖x_i‖) x_i / Σ_i TS_i

    The result is never longer than g_0, and never points away from it, whatever share of the rows is hostile. A row of
    zeros has no trust; if no row has any, or g_0 is zero, the result is zero, and the round changes nothing.

    References:
      Cao, Fang, Liu, Gong 2021, "FLTrust: Byzantine-robust federated learning via trust bootstrapping", NDSS, section 4
      and algorithm 2.
    """

    needs_root = True

    def fewest(self, attackers: int) -> int:
        """f + 1: one honest row beside the server's own."""
        return attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`.

        Raises:
          PipelineError: There is no update of the server's own.
        """
        if given.root is None:
            raise PipelineError("rule `FLTrust` compares updates with one of the server's own, and there is none")
        length = float(Rows([given.root]).norms[0])
        norms = rows.norms
        some = norms > _NOTHING
        safe = np.where(some, norms, 1.0)
        trust = np.zeros(len(rows))
        if length > _NOTHING:
            trust[some] = np.maximum(0.0, rows.products_with(given.root) / safe / length)[some]
        weights = trust / (trust.sum() or 1.0) * (length / safe)
        return Combined(vector=rows.combined(weights), weights=weights, measured={"trusted": float((trust > 0).sum())})
