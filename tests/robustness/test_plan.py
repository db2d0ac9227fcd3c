"""Rows, columns and cells of a robustness table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanse.core.errors import SettingError
from hanse.jobs.registry import NAMES
from hanse.robustness.plan import Place, Wanted, make_plan, settings_differ


def test_the_table_holds_every_attack_and_every_rule() -> None:
    plan = make_plan(Wanted())
    assert {entry.attack["use"] for entry in plan.attacks if entry.attack} == set(NAMES["attack"])
    assert {rule.rule["use"] for rule in plan.rules if rule.rule} == set(NAMES["rule"]) - {"average"}
    assert plan.attacks[0].name == "none"
    assert plan.rules[0].name == "mean"
    assert {rule.name for rule in plan.rules if rule.mixing} == {
        "nearest_neighbours+multi_krum",
        "nearest_neighbours+trimmed_mean",
    }
    assert len(list(plan.cells())) == len(plan.attacks) * len(plan.rules) * 4


def test_names_choose_and_mean_and_no_attack_stay_first() -> None:
    plan = make_plan(Wanted(rules=["bucketing+krum", "mean", "krum", "krum"], attacks=["ipm", "none"]))
    assert [rule.name for rule in plan.rules] == ["mean", "bucketing+krum", "krum"]
    assert [entry.name for entry in plan.attacks] == ["none", "ipm"]


def test_cells_go_table_by_table_and_row_by_row() -> None:
    plan = make_plan(Wanted(rules=["krum"], attacks=["ipm"], shares=[0.2, 0.4], partitions=["iid"]))
    assert [(place.share, place.attack, place.rule) for place in plan.cells()] == [
        (share, attack, rule) for share in (0.2, 0.4) for attack in ("none", "ipm") for rule in ("mean", "krum")
    ]


def test_the_job_of_a_cell() -> None:
    plan = make_plan(Wanted(rules=["nearest_neighbours+krum"], attacks=["sign_flip", "one_model_replacement"], seed=3))
    job = plan.job(Place(partition="dirichlet", share=0.4, attack="sign_flip", rule="nearest_neighbours+krum"))
    assert job["pipeline"]["aggregator"] == {
        "use": "robust",
        "rule": {"use": "krum"},
        "attackers": 0.4,
        "mixing": {"use": "nearest_neighbours"},
    }
    assert job["attack"] == {"use": "sign_flip", "scale": 5.0, "members": {"share": 0.4}}
    assert job["seed"] == 3
    assert job["data"]["partition"] == {"use": "dirichlet", "clients": 20, "alpha": 0.3, "min_size": 16}
    alone = plan.job(Place(partition="iid", share=0.4, attack="one_model_replacement", rule="mean"))
    assert alone["attack"]["members"] == {"count": 1}
    assert alone["pipeline"]["aggregator"] == {"use": "mean"}
    assert plan.job(Place(partition="iid", share=0.4, attack="none", rule="mean"))["attack"] == {}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(rules=["krun"]), ("--rules", "krun", "did you mean `krum`")),
        (Wanted(rules=["nearest_neighbour+krum"]), ("--rules", "did you mean `nearest_neighbours`")),
        (Wanted(attacks=["sign_flp"]), ("--attacks", "did you mean `sign_flip`")),
        (Wanted(data="digit"), ("--data", "did you mean `digits`")),
        (Wanted(partitions=["idd"]), ("--partitions", "did you mean `iid`")),
        (Wanted(shares=[1.0]), ("--shares", "less than 1, got 1")),
        (Wanted(shares=[0.0]), ("--shares", "more than 0")),
        (Wanted(shares=[]), ("--shares", "at least")),
        (Wanted(rounds=0), ("--rounds", "at least 1, got 0")),
    ],
)
def test_what_it_refuses(wanted: Wanted, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingError) as refusal:
        make_plan(wanted)
    for word in words:
        assert word in str(refusal.value)


def test_settings_that_differ_are_named() -> None:
    plan = make_plan(Wanted())
    assert settings_differ(plan.settings(), replace(plan, seed=1, rounds=3).settings()) == ["rounds", "seed"]
    assert settings_differ(plan.settings(), plan.settings()) == []
