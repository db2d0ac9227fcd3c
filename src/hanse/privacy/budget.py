"""`Budget`: how much privacy may be spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper bound on what all releases together may cost.

    Args:
      epsilon: > 0, finite.
      delta: In (0, 1); None where every release is purely epsilon-private (Laplace noise, local privacy). A
        customary choice is well below one over the number of units.

    Raises:
      SettingError: A number is out of its range.

    >>> Budget(epsilon=4, delta=1e-6)
    Budget(epsilon=4.0, delta=1e-06)
    """

    epsilon: float
    delta: float | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.epsilon) or not 0 < self.epsilon < math.inf:
            raise SettingError("epsilon", f"must be above 0 and finite, got {self.epsilon!r}")
        object.__setattr__(self, "epsilon", float(self.epsilon))
        if self.delta is not None:
            check_delta(self.delta)
            object.__setattr__(self, "delta", float(self.delta))

    def __str__(self) -> str:
        return f"ε = {self.epsilon:g}" + (f", δ = {self.delta:g}" if self.delta is not None else " (pure)")


def check_delta(delta: object) -> None:
    """Refuse what is no delta; raises `SettingError`."""
    if not _is_number(delta) or not 0 < delta < 1:
        raise SettingError(
            "delta",
            f"must be above 0 and below 1, got {delta!r}",
            hint="delta is the chance that the bound fails: take well below 1 / number of units, like 1e-6",
        )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
