"""`Flame`: rows of one direction, clipped to the median norm, averaged, and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.majority_cluster import majority_cluster
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Flame:
    """The mean of those rows, clipped, that point the way that most point, plus Gaussian noise.

        admitted   L = majority cluster of c_ij = 1 − cos(x_i, x_j)
        clipping   S = median of ‖x_1‖ … ‖x_n‖        γ_i = min(1, S / ‖x_i‖)
        noise      1/|L| Σ_{i ∈ L} γ_i x_i + N(0, (λ S)²)

    The noise is there against backdoors that got through; it hides nobody's data, and no privacy is accounted for it.

    Deviation: the paper takes cosines of the clients' models, this rule of their updates, as it does not see the model.
    A row of zeros has no direction: it is at distance 1 from all others, and at 0 from other such rows.

    Args:
      noise: λ ≥ 0; 0 adds none. The paper takes 0.001 for images and 0.01 for network traffic.

    References:
      Nguyen, Rieger, Chen, Yalame, Möllering, Fereidooni, Marchal, Miettinen, Mirhoseini, Zeitouni, Koushanfar,
      Sadeghi, Schneider 2022, "FLAME: taming backdoors in federated learning", USENIX Security, algorithm 1.
    """

    noise: float = 0.001

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise SettingError("noise", f"must be a number of at least 0, got {self.noise}")

    def fewest(self, attackers: int) -> int:
        """2f + 1."""
        return 2 * attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        admitted = majority_cluster(cosine_distances(rows.gram))
        norms = np.sqrt(np.maximum(np.diag(rows.gram), 0.0))
        median = float(np.median(norms))
        weights = np.zeros(len(rows))
        weights[admitted] = median / np.maximum(norms[admitted], median) / len(admitted) if median > 0 else 0.0
        vector = rows.combined(weights)
        if self.noise > 0 and median > 0:
            vector += given.rng.normal(scale=self.noise * median, size=len(vector))
        return Combined(vector=vector, weights=weights, measured={"admitted": float(len(admitted))})


def cosine_distances(gram: np.ndarray) -> np.ndarray:
    """`[n, n]` in [0, 2]: `1 − cos` of all pairs; a row of zeros is at 1 from all others, and at 0 from other zeros.

    Args:
      gram: `[n, n]`: inner products.
    """
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    zero = norms == 0
    safe = np.where(zero, 1.0, norms)
    found = np.clip(1 - gram / safe[:, None] / safe[None, :], 0.0, 2.0)
    found[np.ix_(zero, zero)] = 0.0
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)
