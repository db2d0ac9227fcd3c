"""Secure sums in a federation of real processes: the same bits as simulated, whoever is killed in which step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.privacy.run import scope_of
from tests.federation.fleet import Fleet, fleet
from tests.federation.test_end_to_end import JOB, check

pytestmark = pytest.mark.slow

SEEDS = itertools.count(70)
SECURE: dict[str, Any] = {
    **JOB,
    "name": "secure",
    "data": {**JOB["data"], "partition": {**JOB["data"]["partition"], "clients": 5}},
    "strategy": {**JOB["strategy"], "weighting": "uniform"},
    "pipeline": {
        "stages": [{"use": "clip", "norm": 2.0}, {"use": "modular", "range": 2.0, "bits": 20}],
        "aggregator": {"use": "secure_sum", "threshold": 0.6},
    },
}


@pytest.fixture
def job() -> dict[str, Any]:
    return {**SECURE, "seed": next(SEEDS)}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three sites; they take part in asynchronous sums too, which rely on the coordinator."""
    folder = tmp_path_factory.mktemp("secure")
    sites = {site: ("--simulate", f"{k}/3") for k, site in enumerate(("north", "south", "east"), 1)}
    with fleet(folder, sites, running=False, forked=True) as one:
        for site in sites:
            toml = folder / site / "site.toml"
            toml.write_text(toml.read_text().replace("[secure_sums]\n", "[secure_sums]\nactive = false\n"))
            one.run_site(site)
        yield one


def test_the_same_bits_as_simulated(federation: Fleet, job: dict[str, Any]) -> None:
    check(federation, federation.submit(job), job)


LIGHT: dict[str, Any] = {**SECURE["pipeline"], "aggregator": {"use": "light_sum", "threshold": 0.6}}


def test_the_light_protocol_gives_the_same_bits_as_simulated(federation: Fleet, job: dict[str, Any]) -> None:
    light = {**job, "name": "light", "pipeline": LIGHT}
    check(federation, federation.submit(light), light)


GROUPS: dict[str, Any] = {
    "use": "sums_of_groups",
    "groups": 2,
    "rule": "median",
    "attackers": 0,
    "sum": {"use": "secure_sum", "min_survivors": 2, "threshold": 0.6},
}
GROUPED: dict[str, Any] = {  # six clients: sites open no sum of fewer than three
    "data": {**SECURE["data"], "partition": {**SECURE["data"]["partition"], "clients": 6}},
    "pipeline": {**SECURE["pipeline"], "aggregator": GROUPS},
}


def test_a_robust_rule_over_sums_of_groups_gives_the_same_bits_as_simulated(
    federation: Fleet, job: dict[str, Any]
) -> None:
    grouped = {**job, **GROUPED, "name": "grouped"}
    check(federation, federation.submit(grouped), grouped)


def test_groups_of_clients_and_rounds_without_end_are_refused(federation: Fleet, job: dict[str, Any]) -> None:
    buffered = {
        **job,
        **GROUPED,
        "name": "grouped-and-buffered",
        "cohort": {"use": "uniform", "size": 6},
        "evaluate": {"clients": "none"},
        "federation": {"stragglers": "buffer"},
    }
    card = federation.wait(federation.submit(buffered))
    assert card.status == "failed"
    assert "groups are of one round's clients" in card.reason


def test_asynchronous_rounds_with_hidden_updates_finish(federation: Fleet, job: dict[str, Any]) -> None:
    buffered = {
        **job,
        "name": "buffered",
        "pipeline": LIGHT,
        "cohort": {"use": "uniform", "size": 4},
        "evaluate": {"clients": "none"},
        "federation": {"stragglers": "buffer", "over_select": 1.25},
    }
    card = federation.wait(federation.submit(buffered))
    assert card.status == "finished", (card.reason, federation.logs())


ANSWERS = ("held", "keys", "shares", "inputs", "confirmation", "unmasking")


BEFORE = 2 + 2 * len(ANSWERS)
"""What a site with one client brings before round 1: it describes its data and prepares; statistics, and metrics."""


@pytest.mark.parametrize("answer", [*range(len(ANSWERS)), 3 - 2 * len(ANSWERS)], ids=[*ANSWERS, "inputs of statistics"])
def test_a_site_that_is_killed_in_any_step_changes_no_bit(federation: Fleet, job: dict[str, Any], answer: int) -> None:
    """Killed with an answer in hand."""
    federation.stop_site("east")
    fault = f"hanse.federation.client.run_process:RunProcess._bring:{BEFORE + 1 + answer}:before"
    federation.run_site("east", fault=fault)
    run = federation.submit(job)
    federation.wait_killed(federation.sites["east"])
    federation.run_site("east")
    check(federation, run, job)


@pytest.mark.parametrize("step", range(1, 6), ids=ANSWERS[1:])
def test_a_coordinator_that_is_killed_in_any_step_changes_no_bit(
    federation: Fleet, job: dict[str, Any], step: int
) -> None:
    """Killed with all answers of a step: before it has noted that, or, every other one, just after."""
    when = "before" if step % 2 else "after"
    federation.coordinator.stop()
    federation.serve(fault=f"hanse.rounds.sum_diary:DiaryFile.note:{2 * 5 + step}:{when}")
    run = federation.submit(job)
    federation.wait_killed(federation.coordinator)
    federation.serve()
    check(federation, run, job)


def test_noise_in_shares_is_in_sums_alone_and_charged(federation: Fleet, job: dict[str, Any]) -> None:
    private = {
        **job,
        "name": "shares",
        "cohort": {"use": "uniform", "size": 5},
        "evaluate": {"clients": "none"},
        "task": {**job["task"], "preprocess": {"use": "standardize", "fit": "client"}},
        "pipeline": {"stages": [{"use": "clip", "norm": 0.5}], "aggregator": job["pipeline"]["aggregator"]},
        "privacy": {
            "mechanism": {"use": "distributed", "max_dropout": 0.2},
            "budget": {"epsilon": 20.0, "delta": 1e-4},
        },
    }
    card = federation.wait(federation.submit(private))
    assert card.status == "finished", (card.reason, federation.logs())
    ledger = PrivacyLedger(federation.folder / "coordinator" / "privacy.sqlite", scope=scope_of(card.id))
    assert [entry.key.round for entry in ledger.entries()] == [1, 2, 3, 4]
