"""`GeometricMedian`: the point whose distances from all rows have the least sum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class GeometricMedian:
    """The geometric median by the smoothed Weiszfeld algorithm.

        β_i = 1 / max(ν, ‖z − x_i‖)        z ← Σ_i β_i x_i / Σ_i β_i

    z is always a mean of the rows, so its weights `[n]` are carried along in its place, and distances follow from the
    rows' inner products: an iteration costs n², not nP. It holds as long as more than half of the rows are honest.

    Deviations: the paper starts anywhere and makes three iterations, as each is a round of messages there; here they
    are all but free, so there are more. They start from the mean of the rows with weights 1 / max(ν, r_i), r_i being
    the distance within which row i has more than half of all rows: near the honest rows wherever the others are, while
    from the plain mean many iterations would go by on the way. All rows count alike; in the paper by their examples.

    Distances are those of `Rows.squared_distances`, so what is nearer than a thousandth of the spread is not resolved.

    Args:
      iterations: R ≥ 1.
      smoothing: ν > 0.
      relative: Whether ν is in units of the median of all r_i; else in those of the rows. If that median is 0, more
        than half of the rows are one point, and that is the median.

    References:
      Pillutla, Kakade, Harchaoui 2022, "Robust aggregation for federated learning", IEEE Transactions on Signal
      Processing 70, algorithm 2.
    """

    iterations: int = 32
    smoothing: float = 1e-6
    relative: bool = True

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise SettingError("iterations", f"must be at least 1, got {self.iterations}")
        if not 0 < self.smoothing < math.inf:
            raise SettingError("smoothing", f"must be a number above 0, got {self.smoothing}")

    def fewest(self, attackers: int) -> int:
        """2f + 1."""
        return 2 * attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        distances = np.sqrt(rows.squared_distances)
        radii = np.sort(distances, axis=1)[:, len(rows) // 2]
        middle = float(np.sort(radii)[(len(rows) - 1) // 2])
        smoothing = self.smoothing * middle if self.relative else self.smoothing
        weights = _inverse(radii, smoothing)
        for _ in range(self.iterations):
            weights = _inverse(distances_from(weights, rows.centred_gram), smoothing)
        return Combined(vector=rows.combined(weights), weights=weights)


def distances_from(weights: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """`[n]`: how far each row is from a mean of the rows, `√(G_ii − 2 (G w)_i + wᵀ G w)`.

    Args:
      weights: w, `[n]`; with a Gram matrix about a centre, the rest of 1 is the centre's.
      gram: G, `[n, n]`: the rows' inner products, about any centre where the sum of w is 1.
    """
    products = gram @ weights
    return np.asarray(np.sqrt(np.maximum(np.diag(gram) - 2 * products + weights @ products, 0.0)))


def _inverse(distances: np.ndarray, smoothing: float) -> np.ndarray:
    """Weights `1 / max(ν, distance)`, scaled to the sum 1; where ν and some distances are 0, those rows share it."""
    floored = np.maximum(distances, smoothing)
    least = floored.min()
    found = (floored == 0) * 1.0 if least == 0 else least / floored
    return np.asarray(found / found.sum())
