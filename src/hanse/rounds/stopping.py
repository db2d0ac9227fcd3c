"""Early stopping, decided from committed records alone, so that a resumed run decides alike."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hanse.rounds.history import Objective, RoundRecord
from hanse.rounds.settings import StopSettings


class ObjectiveTracker:
    """Follows the objective round by round, at constant cost a round.

    Args:
      objective: Metric, and which way is better.
      settings: When to stop.
      records: Committed rounds to start from.
    """

    def __init__(self, objective: Objective, settings: StopSettings, records: Iterable[RoundRecord] = ()) -> None:
        self._name, direction = objective
        self._sign = 1.0 if direction == "max" else -1.0
        self._settings = settings
        self._best: float | None = None
        self._best_round: int | None = None
        self._mark: float | None = None  # the best so far by more than min_delta, and its round
        self._mark_round = 0
        self._reason: str | None = None
        for record in records:
            self.add(record)

    @property
    def best_round(self) -> int | None:
        """The first round with the best objective; None where nothing was measured."""
        return self._best_round

    @property
    def reason_to_stop(self) -> str | None:
        """Why to stop after the newest round, in words; None to go on."""
        return self._reason

    def add(self, record: RoundRecord) -> None:
        """Take in the next committed round."""
        self._reason = None
        found = record.objective_value(self._name)
        if found is None:
            return
        value = self._sign * found
        if not math.isnan(value):
            if self._best is None or value > self._best:
                self._best, self._best_round = value, record.round
            if self._mark is None or value > self._mark + self._settings.min_delta:
                self._mark, self._mark_round = value, record.round
        self._reason = self._judge(record.round, found)

    def _judge(self, round_number: int, found: float) -> str | None:
        target, patience = self._settings.target, self._settings.patience
        if target is not None and self._sign * found >= self._sign * target:
            return f"{self._name} reached {found:.4g}, the target was {target:g}"
        waited = round_number - self._mark_round
        if patience is not None and waited >= patience:
            best = "none" if self._mark is None else f"{self._sign * self._mark:.4g} in round {self._mark_round}"
            return f"{self._name} has not improved for {waited} rounds (best: {best})"
        return None
