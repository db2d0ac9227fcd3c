"""What the round loop is told: how many rounds, who, when to evaluate, when to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hanse.core.errors import SettingError
from hanse.rounds.selection import Everyone, Selector


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """When and where models are measured.

    Args:
      every: Measure after every this many rounds, and after the last one, ≥ 1.
      initial: Measure the model before training too.
      central: Measure on the official test set, where there is one.
      clients: Whose held-out examples to measure on: ``"all"``, ``"cohort"`` (those who trained this
        round), ``"none"``, a number of clients drawn once, or ``"auto"``: all if they hold any held-out
        examples and are at most 1,000, else 1,000 of them.
      split: Which part of the clients' data is reported. Where clients keep a validation part back,
        it is measured too, and models are compared on it.
    """

    every: int = 1
    initial: bool = True
    central: bool = True
    clients: int | Literal["auto", "all", "cohort", "none"] = "auto"
    split: Literal["train", "validation", "test"] = "test"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise SettingError("every", f"must be at least 1 round, got {self.every}")
        if isinstance(self.clients, int) and self.clients < 1:
            raise SettingError("clients", f'must be at least 1, "auto", "all", "cohort" or "none", got {self.clients}')


@dataclass(frozen=True, kw_only=True)
class StopSettings:
    """When to stop before the last round.

    Args:
      patience: Stop after this many rounds without a better objective, ≥ 1; None never does.
      min_delta: What counts as better, in the objective's unit, ≥ 0.
      target: Stop once the objective is at least as good as this; None never does.
    """

    patience: int | None = None
    min_delta: float = 0.0
    target: float | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise SettingError("patience", f"must be at least 1 round, got {self.patience}")
        if not self.min_delta >= 0:
            raise SettingError("min_delta", f"must not be negative, got {self.min_delta}")


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """Everything that the round loop is told.

    Args:
      rounds: Rounds to run, ≥ 1.
      seed: Of all reproducible randomness.
      cohort: Who trains in a round.
      min_clients: A round with fewer usable updates is abandoned, ≥ 1.
      evaluate: When and where models are measured.
      stop: When to stop early.
    """

    rounds: int
    seed: int = 0
    cohort: Selector = field(default_factory=Everyone)
    min_clients: int = 1
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    stop: StopSettings = field(default_factory=StopSettings)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise SettingError("rounds", f"must be at least 1, got {self.rounds}")
        if self.min_clients < 1:
            raise SettingError("min_clients", f"must be at least 1, got {self.min_clients}")
