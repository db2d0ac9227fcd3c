"""Learning-rate schedules by round: a factor that multiplies the client optimiser's rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from hanse.core.errors import SettingError


class Schedule(Protocol):
    """A factor for each round."""

    def factor(self, round_number: int) -> float:
        """The factor in round `round_number` (from 1), dimensionless, ≥ 0."""
        ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Always 1."""

    def factor(self, round_number: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """`decay ** (round − 1)`, as McMahan 2017 used on CIFAR-10.

    Args:
      decay: Factor from one round to the next, in (0, 1].
    """

    decay: float

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise SettingError("decay", f"must be above 0 and at most 1, got {self.decay}")

    def factor(self, round_number: int) -> float:
        """`decay ** (round − 1)`."""
        return float(self.decay ** (round_number - 1))


@dataclass(frozen=True, kw_only=True)
class Step:
    """Multiplied by `decay` once every `every` rounds.

    Args:
      every: Rounds between two drops, ≥ 1.
      decay: Factor at a drop, in (0, 1].
    """

    every: int
    decay: float = 0.1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise SettingError("every", f"must be at least 1 round, got {self.every}")
        if not 0 < self.decay <= 1:
            raise SettingError("decay", f"must be above 0 and at most 1, got {self.decay}")

    def factor(self, round_number: int) -> float:
        """`decay ** floor((round − 1) / every)`."""
        return float(self.decay ** ((round_number - 1) // self.every))


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 down to `floor` over `rounds`, then `floor`.

    Args:
      rounds: Length of the descent, ≥ 1.
      floor: Last factor, in [0, 1].

    References:
      Loshchilov, Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """

    rounds: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise SettingError("rounds", f"must be at least 1, got {self.rounds}")
        if not 0 <= self.floor <= 1:
            raise SettingError("floor", f"must lie between 0 and 1, got {self.floor}")

    def factor(self, round_number: int) -> float:
        """`floor + (1 − floor) · (1 + cos(π (round − 1) / rounds)) / 2`."""
        share = min((round_number - 1) / self.rounds, 1.0)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * share))
