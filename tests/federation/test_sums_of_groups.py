"""Secure sums of groups between a coordinator and sites: the same bits as simulated, whoever is lost or killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hanse.aggregators.robust.columns import Median
from hanse.aggregators.robust.sums_of_groups import SumsOfGroups
from hanse.aggregators.secure_sum import SecureSum
from hanse.core.messages import ClientFailure, Phase, SumPhase
from hanse.core.messages import Reply as CoreReply
from hanse.federation.protocol import HeldReply, SumReply
from hanse.rounds.held_answers import HeldAnswers
from hanse.rounds.journal import MemoryJournal
from hanse.rounds.loop import run_rounds
from hanse.rounds.run_parts import RunOutcome
from hanse.rounds.secure_sum import fewest_in_one_sum
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
    factory,
    opened,
    parts_of,
)

# five clients: a group of three and one of two
GROUPS = SumsOfGroups(groups=2, rule=Median(), attackers=0, sum=SecureSum(threshold=0.4, min_survivors=2))
GROUPED = replace(PIPELINE, aggregator=GROUPS)


def alone(folder: Path, lost: str = "") -> RunOutcome:
    """Simulated, where one client may never deliver."""

    class Losing(InProcessTransport):
        def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[CoreReply]:
            for reply in super().exchange(phase, clients):
                gone = ClientFailure(client=lost, round=phase.round, kind="lost", message="")
                yield gone if reply.client == lost else reply

    numbers = partial(SimulatedNumbers, aggregator=GROUPS, seed=SETTINGS.seed)
    transport = Losing(factory(folder, GROUPED)())
    return run_rounds(parts_of(transport, pipeline=GROUPED, numbers=numbers), SETTINGS, emit=lambda _: None)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = opened(tmp_path, GROUPED)
    yield made
    made.close()


def test_the_same_bits_as_simulated_and_nothing_single_on_the_way(world: World, simulated: RunOutcome) -> None:
    outcome = world.run()
    assert outcome.state.params.sha256() == simulated.state.params.sha256()
    for record, other in zip(outcome.history.rounds, simulated.history.rounds, strict=True):
        assert (record.train, record.federated, record.verdicts) == (other.train, other.federated, other.verdicts)
        assert not record.failures
    assert [record.measured["groups"] for record in outcome.history.rounds[1:]] == [2, 2]
    assert outcome.history.rounds[1].bytes_up == simulated.history.rounds[1].bytes_up
    assert {type(reply) for _, reply in world.replies} == {HeldReply, SumReply}


def test_a_clients_sum_is_of_its_group_alone(tmp_path: Path) -> None:
    asked: dict[tuple[int, str], tuple[int, int]] = {}

    class Noting:
        def __init__(self, inner: HeldAnswers) -> None:
            self._inner = inner

        def answer(self, phase: Phase, clients: Sequence[str]) -> Iterator[CoreReply]:
            if isinstance(phase, SumPhase) and phase.purpose == "update" and phase.step == "keys":
                asked.update({(phase.round, client): (phase.asked, phase.least) for client in clients})
            yield from self._inner.answer(phase, clients)

    world = opened(tmp_path, GROUPED, lambda site, make: Noting(make()))
    try:
        world.run()
    finally:
        world.close()
    for number in range(1, SETTINGS.rounds + 1):
        of_round = [told for (at, _), told in asked.items() if at == number]
        assert sorted(of_round) == [(2, 2), (2, 2), (3, 2), (3, 2), (3, 2)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_is_started_anew_in_any_step_costs_its_groups_at_most(
    tmp_path: Path, simulated: RunOutcome, step: str, when: str
) -> None:
    made: list[Restarting] = []

    def wrap(site: str, make: Callable[[], HeldAnswers]) -> object:
        if site != "north":
            return make()
        made.append(Restarting(make, step, when))
        return made[-1]

    world = opened(tmp_path, GROUPED, wrap)
    try:
        outcome = world.run()
    finally:
        world.close()
    assert sum(one.struck for one in made)
    assert not any(record.failures for record in outcome.history.rounds)
    same = outcome.state.params.sha256() == simulated.state.params.sha256()
    if STEPS.index(step) <= STEPS.index("inputs"):
        assert same
    else:  # a site with two clients of a small group may be needed for its opening
        groups = [record.measured.get("groups") for record in outcome.history.rounds[1:]]
        assert (groups == [2, 2]) == same
        assert set(groups) <= {1, 2}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("client", ["site-0", "site-4"])
def test_a_group_with_a_lost_client_is_opened_without_it_or_not_at_all(tmp_path: Path, step: str, client: str) -> None:
    without, whole = alone(tmp_path / "without", client), alone(tmp_path / "whole")
    world = opened(tmp_path, GROUPED, lambda site, make: Dropping(make(), client, step))
    try:
        outcome = world.run()
    finally:
        world.close()
    if STEPS.index(step) <= STEPS.index("inputs"):
        assert outcome.state.params.sha256() == without.state.params.sha256()
        for record in outcome.history.rounds[1:]:
            assert [one.client for one in record.failures if one.during == "training"] == [client]
    else:  # its part has come; its group may be too small to be opened without its help
        groups = [record.measured.get("groups") for record in outcome.history.rounds[1:]]
        assert all(found in (1, 2) for found in groups)
        assert (groups == [2, 2]) == (outcome.state.params.sha256() == whole.state.params.sha256())


@pytest.mark.parametrize("after", [0, 2, 9])
@pytest.mark.parametrize("step", STEPS)
def test_a_coordinator_that_is_killed_in_any_step_goes_on_with_the_same_sums(
    world: World, simulated: RunOutcome, step: str, after: int
) -> None:
    journal = MemoryJournal()
    with pytest.raises(Killed):
        world.run(Killing(world.transport(), step, after), journal)
    world.coordinator.restart()
    outcome = world.run(journal=journal)
    assert outcome.state.params.sha256() == simulated.state.params.sha256()
    assert not any(record.failures for record in outcome.history.rounds)


def test_a_site_reckons_how_many_must_be_in_its_groups_sum() -> None:
    own = GROUPS.sum
    assert isinstance(own, SecureSum)
    wanted = [own.survivors(size) for size in (2, 10, 20)]  # half of the cohort each
    assert [fewest_in_one_sum(GROUPED, 2, cohort) for cohort in (5, 20, 40)] == wanted
    assert wanted[0] < wanted[1] < wanted[2]
    assert fewest_in_one_sum(PIPELINE, 7, 5) == 7  # one sum of all: as many as the round must have
