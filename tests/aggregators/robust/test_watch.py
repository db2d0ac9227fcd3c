"""Scores by hand, what is flagged and when, and what is remembered of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.columns import Median
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.watch import Watch, scores_of
from hanse.core.errors import SettingError
from hanse.core.judged_round import JudgedRound, Memory, Verdict
from hanse.testing.aggregator import check_aggregator
from hanse.testing.fakes import make_update


def rows(*vectors: Sequence[float]) -> Rows:
    return Rows([np.array(vector, dtype=np.float32) for vector in vectors])


def judged(watch: Watch, given: Rows, rounds: int = 1, names: Sequence[str] = "") -> tuple[list[Verdict], Memory]:
    clients = list(names) or [f"site-{i}" for i in range(len(given))]
    memory: Memory = {}
    for _ in range(rounds):
        verdicts, memory = watch.judge(given, clients, memory)
    return verdicts, memory


def reasons(watch: Watch, given: Rows, rounds: int = 5) -> dict[str, str]:
    return {verdict.client: verdict.reason for verdict in judged(watch, given, rounds)[0] if verdict.reason}


# honest: (3, 4), (4, 3) and (5, 0); the median of all three is (4, 3)
HONEST = ([3.0, 4.0], [4.0, 3.0], [5.0, 0.0])


def test_scores_by_hand() -> None:
    found = scores_of(rows(*HONEST))
    assert np.allclose(found["norm"], 1.0)
    assert np.allclose(found["direction"], [24 / 25, 1.0, 20 / 25], atol=1e-6)
    assert np.allclose(found["likeness"], [24 / 25, 24 / 25, 20 / 25], atol=1e-6)
    assert "loss" not in found


def test_losses_are_held_against_the_median_clients() -> None:
    found = scores_of(rows(*HONEST), np.array([0.5, 0.7, 2.0]))
    assert np.allclose(found["loss"], [-0.2, 0.0, 1.3])


def test_what_has_no_direction_is_like_nothing() -> None:
    found = scores_of(rows(*HONEST, [0.0, 0.0]))
    assert found["norm"][3] == found["direction"][3] == found["likeness"][3] == 0
    assert all(np.isfinite(values).all() for values in found.values())


def test_zeros_alone_stand_out_in_nothing() -> None:
    found = scores_of(rows([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]))
    assert np.array_equal(found["norm"], [1.0, 1.0, 1.0])
    assert all(np.isfinite(values).all() for values in found.values())


def test_nobody_stands_out_among_the_honest() -> None:
    assert reasons(Watch(), rows(*HONEST)) == {}


@pytest.mark.parametrize(
    ("row", "told", "at_once"),
    [
        ([30.0, 40.0], "times the median client's", True),
        ([0.0, 0.0], "its norm is 0 of the median client's", True),
        ([-4.0, -3.0], "points away from the median update", False),
        ([4.5, 2.0], "is the same as somebody else's", False),
    ],
)
def test_each_kind_of_flag(row: list[float], told: str, at_once: bool) -> None:
    given = rows(*HONEST, [4.5, 2.0], row)
    assert told in reasons(Watch(), given)["site-4"]
    assert ("site-4" in reasons(Watch(), given, rounds=1)) == at_once
    assert ("site-4" in reasons(Watch(), given, rounds=4)) == at_once


def test_noise_is_like_nobody_elses() -> None:
    rng = np.random.default_rng(1)
    honest = [np.ones(2000) + rng.normal(size=2000) for _ in range(6)]
    given = rows(*honest, rng.normal(size=2000) * 1.4)  # type: ignore[arg-type]
    found = reasons(Watch(), given)
    assert set(found) == {"site-6"}
    assert "is like nobody else's" in found["site-6"]


def test_a_rise_of_the_loss_is_flagged() -> None:
    memory: Memory = {}
    for _ in range(5):
        verdicts, memory = Watch().judge(
            rows(*HONEST), ["a", "b", "c"], memory, losses=lambda: np.array([0.5, 0.6, 5.0])
        )
    assert [bool(verdict.reason) for verdict in verdicts] == [False, False, True]
    assert "raises the loss on the server's examples" in verdicts[2].reason


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e36])
def test_a_loss_out_of_all_proportion_is_flagged_and_spoils_no_other_mean(odd: float) -> None:
    memory: Memory = {}
    for _ in range(5):
        verdicts, memory = Watch().judge(rows(*HONEST), list("abc"), memory, losses=lambda: np.array([0.5, 0.6, odd]))
    assert [bool(verdict.reason) for verdict in verdicts] == [False, False, True]
    assert all(np.isfinite(kept).all() for kept in memory.values())
    for _ in range(120):  # and who sent it once is not flagged for ever
        verdicts, memory = Watch().judge(rows(*HONEST), list("abc"), memory, losses=lambda: np.full(3, 0.5))
    assert not any(verdict.reason for verdict in verdicts)


def test_losses_of_which_none_is_a_number_say_nothing() -> None:
    assert np.array_equal(scores_of(rows(*HONEST), np.full(3, np.nan))["loss"], np.zeros(3))


@pytest.mark.parametrize("size", [1e-9, 1e-30, 1e30])
def test_scores_do_not_depend_on_the_unit(size: float) -> None:
    found, wanted = scores_of(rows(*(np.array(HONEST) * size))), scores_of(rows(*HONEST))  # type: ignore[arg-type]
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_clients_who_all_send_the_same_do_not_stand_out_by_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = rng.normal(size=1000)
    assert reasons(Watch(), rows(*(row * scale for scale in rng.uniform(0.5, 2, size=7)))) == {}  # type: ignore[arg-type]


def test_where_nobody_is_like_anybody_nobody_stands_out_by_it() -> None:
    told = reasons(Watch(direction=-1.0), rows([1.0, 0.0], [-1.0, 1.0]))
    assert told == {}


def test_one_bad_round_among_good_ones_is_forgiven() -> None:
    watch, memory = Watch(settled=1, fading=1.0, twin=0.0), dict[str, np.ndarray]()
    away, again = rows(*HONEST, [4.5, 2.0], [-4.0, -3.0]), rows(*HONEST, [4.5, 2.0], [4.0, 2.5])
    clients = list("abcde")
    flagged = []
    for given in (again, again, again, away, again):
        verdicts, memory = watch.judge(given, clients, memory)
        flagged.append([verdict.client for verdict in verdicts if verdict.reason])
    assert flagged == [[]] * 5


def test_flags_are_counted_and_end_in_quarantine() -> None:
    watch = Watch(quarantine_after=2)
    given = rows(*HONEST, [300.0, 400.0])
    first, memory = judged(watch, given, 1)
    assert (first[3].scores["flags"], first[3].quarantined) == (1, False)
    assert watch.quarantined(memory) == {}
    second, memory = judged(watch, given, 2)
    assert (second[3].scores["flags"], second[3].quarantined) == (2, True)
    assert watch.quarantined(memory) == {"site-3": "stood out in 2 rounds"}
    assert Watch().quarantined(memory) == {}


def test_who_was_not_there_is_remembered() -> None:
    watch = Watch(quarantine_after=2)
    _, memory = watch.judge(rows(*HONEST, [300.0, 400.0]), ["a", "b", "c", "bad"], {})
    _, memory = watch.judge(rows(*HONEST), ["a", "b", "c"], memory)
    verdicts, _ = watch.judge(rows(*HONEST, [300.0, 400.0]), ["a", "b", "c", "bad"], memory)
    assert verdicts[3].quarantined


def test_the_order_of_updates_plays_no_part() -> None:
    rng = np.random.default_rng(2)
    updates = [make_update(rng.normal(size=30), client=f"site-{i}") for i in range(7)]
    rule = Robust(rule=Median(), attackers=1, watch=Watch())
    check_aggregator(rule)

    def verdicts(order: Sequence[int]) -> tuple[Verdict, ...]:
        total = rule.zero(updates[0].delta.spec)
        for i in order:
            total = rule.accumulate(total, updates[i], 1.0)
        return rule.finish(total).verdicts

    assert verdicts(range(7)) == verdicts([3, 1, 6, 0, 2, 5, 4])


def test_losses_come_from_the_round() -> None:
    updates = [make_update(np.array(vector), client=f"site-{i}") for i, vector in enumerate(HONEST)]
    rule = Robust(rule=Median(), attackers=1, watch=Watch())
    given = JudgedRound(round=1, rng=np.random.default_rng(0), root_loss=lambda delta: float(delta.numpy()[0]))
    bound, total = rule.judging(given), rule.zero(updates[0].delta.spec)
    for update in updates:
        total = rule.accumulate(total, update, 1.0)
    assert [verdict.scores["loss"] for verdict in bound.finish(total).verdicts] == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"largest": 1.0},
        {"smallest": 1.0},
        {"direction": 1.0},
        {"alone": -0.1},
        {"twin": 1.0},
        {"loss": 0.0},
        {"settled": 0},
        {"fading": 1.5},
        {"quarantine_after": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        Watch(**settings)
