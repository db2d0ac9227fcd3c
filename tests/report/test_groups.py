from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hanse.report.groups import Score, format_score, group_runs, metrics_of, score_for
from hanse.rounds.history import History, RoundRecord, RunRecord

ACCURACY = Score(metric="accuracy", better="max")


def run(seed: int, accuracies: list[float], *, mu: float = 0.0, **changes: object) -> RunRecord:
    rounds = tuple(
        RoundRecord(round=i, federated={"accuracy": value, "loss": 1 - value}) for i, value in enumerate(accuracies)
    )
    record = RunRecord(
        name=f"mu-{mu}-seed-{seed}",
        status="finished",
        path="",
        rounds_planned=len(rounds) - 1,
        history=History(rounds=rounds, objective=("accuracy", "max")),
        model_sha256="",
        num_parameters=1,
        num_clients=1,
        job={"name": f"run-{seed}", "seed": seed, "strategy": {"mu": mu}, "simulation": {"workers": seed}},
        versions={},
        seconds=2.0,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def test_mean_and_sample_deviation_by_hand() -> None:
    (group,) = group_runs([run(1, [0.1, 0.6]), run(2, [0.1, 0.8]), run(3, [0.1, 1.0])], ACCURACY)
    assert group.mean == pytest.approx(0.8)
    assert group.deviation == pytest.approx(math.sqrt((0.2**2 + 0.2**2) / 2))
    assert format_score(ACCURACY, group) == "80.0 ± 20.0 %"
    assert group.seconds == 2.0


def test_groups_differ_in_more_than_the_seed_and_the_best_comes_first() -> None:
    runs = [run(1, [0.5]), run(1, [0.9], mu=0.1), run(2, [0.6]), run(2, [0.8], mu=0.1)]
    groups = group_runs(runs, ACCURACY)
    assert [[item.name for item in group.runs] for group in groups] == [
        ["mu-0.1-seed-1", "mu-0.1-seed-2"],
        ["mu-0.0-seed-1", "mu-0.0-seed-2"],
    ]
    losses = group_runs(runs, Score(metric="loss", better="min"))
    assert losses[0].mean == pytest.approx(0.15)


def test_what_has_not_ended_does_not_count() -> None:
    runs = [run(1, [0.5]), run(2, [0.9], status="interrupted"), run(1, [0.1], mu=0.3, status="failed")]
    first, last = group_runs(runs, ACCURACY)
    assert (first.scores, first.deviation, len(first.runs)) == ((0.5,), None, 2)
    assert (last.mean, last.seconds) == (None, None)
    assert format_score(ACCURACY, last) == "–"
    assert format_score(ACCURACY, first) == "50.0 %"


def test_the_same_seed_twice_counts_once_and_the_one_that_has_ended() -> None:
    runs = [run(1, [0.5], status="interrupted"), run(1, [0.5]), run(2, [0.7]), run(2, [0.7])]
    (group,) = group_runs(runs, ACCURACY)
    assert group.scores == (0.5, 0.7)
    assert [len(group.runs), len(group.extra)] == [2, 2]
    (same,) = group_runs([runs[1], runs[1]], ACCURACY)
    assert same.scores == (0.5,)


def test_the_last_value_or_the_best() -> None:
    (group,) = group_runs([run(1, [0.5, 0.9, 0.7])], Score(metric="accuracy", better="max", at="best"))
    assert group.scores == (0.9,)
    (group,) = group_runs([run(1, [0.5, 0.9, 0.7])], Score(metric="loss", better="min", at="best"))
    assert group.scores == (pytest.approx(0.1),)
    (group,) = group_runs([run(1, [0.5, 0.9, 0.7])], ACCURACY)
    assert group.scores == (0.7,)


def test_nan_is_never_best() -> None:
    runs = [run(1, [math.nan]), run(1, [0.4], mu=0.1)]
    assert group_runs(runs, ACCURACY)[0].mean == 0.4
    assert group_runs([run(1, [math.nan]), run(2, [0.5])], ACCURACY)[0].deviation is None
    assert Score(metric="accuracy", better="max", at="best").of(runs[0]) is None


def test_the_score_that_a_name_stands_for() -> None:
    runs = [run(1, [0.5])]
    assert score_for(runs) == ACCURACY
    assert score_for(runs, metric="loss", at="best") == Score(metric="loss", better="min", at="best")
    assert metrics_of(runs) == ["accuracy", "loss"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(values: list[float], random: object) -> None:
    runs = [run(seed, [value]) for seed, value in enumerate(values)]
    (group,) = group_runs(runs, ACCURACY)
    random.shuffle(runs)  # type: ignore[attr-defined]
    (again,) = group_runs(runs, ACCURACY)
    assert again.mean == group.mean
    assert again.deviation == group.deviation
