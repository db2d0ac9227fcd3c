"""`MinMax`: as far from the mean as any two honest updates are from each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import as_sent, deviation_of, known_rows, mean_of
from hanse.core.errors import SettingError

Perturbation = Literal["std", "unit", "sign"]


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """All members send `mean + γ p`, with the largest γ that no distance gives away; it needs no rule to be known.

    γ is the largest for which the sent vector m is no further from any known update than these are from each other:

        max_i ‖m − u_i‖ ≤ max_{i,j} ‖u_i − u_j‖

    Each u_i bounds γ by the larger root of a quadratic equation, so γ is the least of these; the paper halves intervals
    until it is near. Where known updates are all the same, or p is zero, the mean is sent.

    Args:
      perturbation: p: ``"std"`` for less the standard deviation of each element, ``"unit"`` for less the mean's
        direction, ``"sign"`` for less the mean's signs.
      omniscient: u are the honest clients' updates; else the members' own.

    References:
      Shejwalkar, Houmansadr 2021, "Manipulating the Byzantine: optimizing model poisoning attacks and defenses for
      federated learning", NDSS, section IV (the Min-Max attack, agnostic of the rule; p is its perturbation vector).
    """

    perturbation: Perturbation = "std"
    omniscient: bool = True

    def __post_init__(self) -> None:
        if self.perturbation not in get_args(Perturbation):
            raise SettingError(
                "perturbation", f"must be one of {', '.join(get_args(Perturbation))}, got {self.perturbation!r}"
            )

    @property
    def knows(self) -> Knowledge:
        """All clients' updates where it is omniscient, else all members'."""
        return "all" if self.omniscient else "members"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        rows = known_rows(seen)
        mean = mean_of(rows)
        direction = self._direction(rows, mean)
        vector = mean + _largest_step(rows, mean, direction) * direction
        return [as_sent(vector, own) for own in seen.own]

    def _direction(self, rows: Rows, mean: np.ndarray) -> np.ndarray:
        if self.perturbation == "std":
            return -deviation_of(rows)
        if self.perturbation == "sign":
            return np.asarray(-np.sign(mean))
        norm = float(np.linalg.norm(mean))
        return np.asarray(-mean / norm) if norm else np.zeros_like(mean)


def _largest_step(rows: Rows, mean: np.ndarray, direction: np.ndarray) -> float:
    """γ, from `‖mean − u_i + γ p‖² = D²` for each i, D being the largest distance of two updates."""
    square = float(direction @ direction)
    if not square:
        return 0.0
    distances = rows.squared_distances
    to_mean = distances.mean(axis=1) - distances.mean() / 2  # ‖u_i − mean‖²
    half = float(mean @ direction) - rows.products_with(direction)
    room = np.maximum(distances.max() - to_mean, 0.0)  # the mean is no further from any than two are from each other
    found = float(np.min(-half + np.sqrt(half**2 + square * room))) / square
    return found if math.isfinite(found) and found > 0 else 0.0
