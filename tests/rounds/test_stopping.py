"""The objective's tracker: best round, patience, target; alike when rebuilt from records."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import SettingError
from hanse.rounds.history import History, RoundRecord
from hanse.rounds.settings import EvaluateSettings, RoundSettings, StopSettings
from hanse.rounds.stopping import ObjectiveTracker


def records(values: list[float | None]) -> list[RoundRecord]:
    return [
        RoundRecord(round=i, central=None if value is None else {"accuracy": value}) for i, value in enumerate(values)
    ]


def tracker(values: list[float | None], **stop: float | int) -> ObjectiveTracker:
    return ObjectiveTracker(("accuracy", "max"), StopSettings(**stop), records(values))  # type: ignore[arg-type]


def test_patience_counts_rounds_since_the_best() -> None:
    assert tracker([0.1, 0.5, 0.4], patience=2).reason_to_stop is None
    reason = tracker([0.1, 0.5, 0.4, 0.45], patience=2).reason_to_stop
    assert reason == "accuracy has not improved for 2 rounds (best: 0.5 in round 1)"


def test_rounds_without_evaluation_do_not_stop_but_count() -> None:
    assert tracker([0.5, None, None], patience=2).reason_to_stop is None
    assert tracker([0.5, None, 0.4], patience=2).reason_to_stop is not None


def test_min_delta_asks_for_a_real_improvement() -> None:
    creeping: list[float | None] = [0.50, 0.505, 0.509]
    assert tracker(creeping, patience=2, min_delta=0.01).reason_to_stop is not None
    assert tracker(creeping, patience=2).reason_to_stop is None
    assert tracker(creeping, patience=2, min_delta=0.01).best_round == 2  # the best is the best all the same


def test_a_target_in_either_direction() -> None:
    assert tracker([0.96], target=0.97).reason_to_stop is None
    assert tracker([0.97], target=0.97).reason_to_stop == "accuracy reached 0.97, the target was 0.97"
    falling = ObjectiveTracker(("accuracy", "min"), StopSettings(target=0.2), records([0.3, 0.2]))
    assert falling.reason_to_stop is not None


def test_nan_is_never_best_and_never_reaches_a_target() -> None:
    found = tracker([math.nan, 0.2, math.nan], target=0.9, patience=5)
    assert found.best_round == 1
    assert found.reason_to_stop is None
    assert tracker([math.nan, math.nan], patience=1).reason_to_stop is not None


@settings(deadline=None)
@given(values=st.lists(st.one_of(st.none(), st.floats(0, 1), st.just(math.nan)), max_size=12))
def test_it_agrees_with_the_history(values: list[float | None]) -> None:
    history = History(rounds=tuple(records(values)), objective=("accuracy", "max"))
    assert tracker(values).best_round == history.best_round()


def test_validation_comes_before_the_test_set() -> None:
    record = RoundRecord(round=1, central={"a": 1.0}, federated={"a": 2.0}, validation={"a": 3.0})
    assert record.objective_value("a") == 3.0
    assert RoundRecord(round=1, central={"a": 1.0}, federated={"a": 2.0}).objective_value("a") == 1.0
    assert RoundRecord(round=1, federated={"a": 2.0}).objective_value("a") == 2.0
    assert RoundRecord(round=1).objective_value("a") is None


def test_first_reaching() -> None:
    history = History(rounds=tuple(records([0.1, 0.6, 0.5, 0.7])), objective=("accuracy", "max"))
    assert history.first_reaching(0.6) == 1
    assert history.first_reaching(0.65) == 3
    assert history.first_reaching(0.9) is None


def test_settings_refuse_what_makes_no_sense() -> None:
    for wrong in ({"patience": 0}, {"min_delta": -1.0}, {"min_delta": math.nan}):
        with pytest.raises(SettingError):
            StopSettings(**wrong)  # type: ignore[arg-type]
    for wrong in ({"every": 0}, {"clients": 0}):
        with pytest.raises(SettingError):
            EvaluateSettings(**wrong)  # type: ignore[arg-type]
    for wrong in ({"rounds": 0}, {"rounds": 1, "min_clients": 0}):
        with pytest.raises(SettingError):
            RoundSettings(**wrong)  # type: ignore[arg-type]
