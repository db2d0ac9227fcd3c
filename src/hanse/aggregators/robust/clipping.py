"""`CentredClipping` and `NormBound`: no row goes in with more than so much length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.geometric_median import distances_from
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class CentredClipping:
    """The last round's result, moved by the mean of the rows' differences from it, each clipped to a radius.

        v ← v + 1/n Σ_i (x_i − v) min(1, τ / ‖x_i − v‖)

    v is what this rule returned in the last round that counted, zeros at first. However far rows are, it moves by no
    more than τ in an iteration, and f attackers move it by no more than τ f / n. The paper's theorem supposes a τ of
    the size of the honest rows' spread, and f ≤ n / 10; honest rows that are further from v than τ are clipped as well.

    v stays a mean of the rows and the first v, so its weights are carried along, and an iteration costs n².

    Args:
      radius: τ > 0, in the units of the rows.
      iterations: l ≥ 1.

    References:
      Karimireddy, He, Jaggi 2021, "Learning from history for Byzantine robust optimization", ICML, section 4 and
      algorithm 2. The momentum that it asks of the clients is theirs to keep.
    """

    remembers = True

    radius: float
    iterations: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise SettingError("radius", f"must be a number above 0, got {self.radius}")
        if self.iterations < 1:
            raise SettingError("iterations", f"must be at least 1, got {self.iterations}")

    def fewest(self, attackers: int) -> int:
        """2f + 1: with as many attackers as others nothing tells who is who. The theorem asks 10f."""
        return 2 * attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        centre = np.asarray(given.memory.get("centre", np.zeros(rows.dimension)), dtype=np.float64)
        gram, weights = rows.gram_about(centre), np.zeros(len(rows))
        for _ in range(self.iterations):
            kept = _factors(distances_from(weights, gram), self.radius) / len(rows)
            weights = weights * (1 - kept.sum()) + kept
        vector = rows.combined(weights)
        vector += (1 - weights.sum()) * centre
        return Combined(vector=vector, weights=weights, memory={"centre": vector})


@dataclass(frozen=True, kw_only=True)
class NormBound:
    """The mean of the rows, each scaled down to a norm of at most `bound`.

        1/n Σ_i x_i min(1, B / ‖x_i‖)

    An attacker moves it by no more than B / n from what it would be with a row of zeros; within that anything goes.

    Args:
      bound: B > 0, in the units of the rows; None for the rows' median norm.

    References:
      Sun, Kairouz, Suresh, McMahan 2019, "Can you really backdoor federated learning?", section 4. A bound of the
      median is not in it.
    """

    bound: float | None = None

    def __post_init__(self) -> None:
        if self.bound is not None and not 0 < self.bound < math.inf:
            raise SettingError("bound", f"must be a number above 0, or nothing for the median norm, got {self.bound}")

    def fewest(self, attackers: int) -> int:
        """2f + 1 for the median norm, or it would be an attacker's; f + 1 for a bound of one's own."""
        return attackers + 1 if self.bound is not None else 2 * attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`; where the median norm is 0, so is the result."""
        bound = float(np.median(rows.norms)) if self.bound is None else self.bound
        weights = _factors(rows.norms, bound) / len(rows)
        return Combined(vector=rows.combined(weights), weights=weights, measured={"norm_bound": bound})


def _factors(norms: np.ndarray, bound: float) -> np.ndarray:
    """`min(1, B / norm)`, and 1 where the norm is 0."""
    longer = norms > bound
    return np.where(longer, bound / np.where(longer, norms, 1.0), 1.0)
