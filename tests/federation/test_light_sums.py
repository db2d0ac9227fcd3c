"""Light secure sums between a coordinator and sites: the same bits as the other protocol's, whoever is lost when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hanse.aggregators.light_sum import LightSum
from hanse.rounds.held_answers import HeldAnswers
from hanse.rounds.journal import MemoryJournal
from hanse.rounds.loop import run_rounds
from hanse.rounds.run_parts import RunOutcome
from hanse.rounds.simulated_numbers import SimulatedNumbers
from hanse.simulation.in_process import InProcessTransport
from tests.federation.sum_world import (
    PIPELINE,
    SETTINGS,
    STEPS,
    Dropping,
    Killed,
    Killing,
    Restarting,
    World,
    Wrap,
    factory,
    opened,
    parts_of,
)
from tests.federation.test_secure_sums import LIES, Lying, simulated, without_one

__all__ = ["simulated", "without_one"]  # fixtures: runs that are simulated with the other protocol

LIGHT = replace(PIPELINE, aggregator=LightSum(threshold=0.4, min_survivors=2, corrupt=0.0))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = opened(tmp_path, LIGHT)
    yield made
    made.close()


def at(named: str, wrap: Callable[[Callable[[], HeldAnswers]], object]) -> Wrap:
    """Wraps one site's answers."""
    return lambda site, make: wrap(make) if site == named else make()


def test_the_same_bits_in_both_worlds_and_as_the_other_protocol(
    world: World, simulated: RunOutcome, tmp_path: Path
) -> None:
    outcome = world.run()
    transport = InProcessTransport(factory(tmp_path / "alone", LIGHT)())
    numbers = partial(SimulatedNumbers, aggregator=LIGHT.aggregator, seed=SETTINGS.seed)
    alone = run_rounds(parts_of(transport, pipeline=LIGHT, numbers=numbers), SETTINGS, emit=lambda _: None)
    assert outcome.state.params.sha256() == alone.state.params.sha256() == simulated.state.params.sha256()
    assert [record.num_updates for record in outcome.history.rounds[1:]] == [5, 5]
    assert not any(record.failures for record in outcome.history.rounds)
    for record, other in zip(outcome.history.rounds, alone.history.rounds, strict=True):
        assert (record.train, record.federated) == (other.train, other.federated)
    assert outcome.history.rounds[1].bytes_up == alone.history.rounds[1].bytes_up


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_is_started_anew_in_any_step_changes_no_bit(
    tmp_path: Path, simulated: RunOutcome, step: str, when: str
) -> None:
    world = opened(tmp_path, LIGHT, at("north", lambda make: Restarting(make, step, when)))
    try:
        outcome = world.run()
    finally:
        world.close()
    assert outcome.state.params.sha256() == simulated.state.params.sha256()
    assert not any(record.failures for record in outcome.history.rounds)


@pytest.mark.parametrize("step", STEPS)
def test_a_client_that_is_lost_in_any_step_is_in_the_sum_or_not_and_nothing_else(
    tmp_path: Path, simulated: RunOutcome, without_one: RunOutcome, step: str
) -> None:
    world = opened(tmp_path, LIGHT, at("east", lambda make: Dropping(make(), "site-4", step)))
    try:
        outcome = world.run()
    finally:
        world.close()
    arrived = STEPS.index(step) > STEPS.index("inputs")
    wanted = simulated if arrived else without_one
    assert outcome.state.params.sha256() == wanted.state.params.sha256()
    assert [record.num_updates for record in outcome.history.rounds[1:]] == [5 if arrived else 4] * 2


@pytest.mark.parametrize("after", [2, 9])
@pytest.mark.parametrize("step", STEPS)
def test_a_coordinator_that_is_killed_in_any_step_goes_on_with_the_same_sum(
    world: World, simulated: RunOutcome, step: str, after: int
) -> None:
    journal = MemoryJournal()
    with pytest.raises(Killed):
        world.run(Killing(world.transport(), step, after), journal)
    world.coordinator.restart()
    outcome = world.run(journal=journal)
    assert outcome.state.params.sha256() == simulated.state.params.sha256()
    assert [record.num_updates for record in outcome.history.rounds[1:]] == [5, 5]
    assert not any(record.failures for record in outcome.history.rounds)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("step", ["shares", "inputs"])
def test_a_client_that_lies_is_refused_by_name_and_the_others_go_on(
    tmp_path: Path, without_one: RunOutcome, step: str, lie: Callable[[bytes, list[bytes]], bytes]
) -> None:
    world = opened(tmp_path, LIGHT, at("east", lambda make: Lying(make(), step, lie)))
    try:
        outcome = world.run()
    finally:
        world.close()
    assert outcome.state.params.sha256() == without_one.state.params.sha256()
    for record in outcome.history.rounds[1:]:
        assert [failure.client for failure in record.failures] == ["site-4", "site-4"]  # in training, and measuring
        assert {failure.kind for failure in record.failures} <= {"MessageRefusedError", "UpdateError"}
