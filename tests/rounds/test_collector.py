"""Late updates in the loop: discounted, refused, recorded, and counted once; aggregators that find too few."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.mean import Mean
from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.columns import Median
from hanse.core.aggregate import Aggregate
from hanse.core.errors import RunError, TooFewClientsError
from hanse.core.messages import Broadcast, ClientFailure, Group, Phase, Reply, ReplyFailure, TrainPhase
from hanse.core.params import Params
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.collector import Collector
from hanse.rounds.history import LateRecord
from hanse.rounds.journal import MemoryJournal
from hanse.rounds.loop import run_rounds
from hanse.rounds.run_parts import RunOutcome, RunParts
from hanse.rounds.selection import Population, Uniform
from hanse.rounds.settings import EvaluateSettings, FederationSettings, RoundSettings
from hanse.strategies.fedavg import FedAvg
from hanse.testing.fakes import make_params, make_update

SPEC = make_params([0.0]).spec
CLIENTS = ("a", "b", "c", "d")


def collector(number: int = 4, pipeline: Pipeline | None = None) -> Collector:
    return Collector(pipeline or Pipeline(), SPEC, number, lambda _: None)


def test_a_late_update_weighs_less_by_the_root_of_its_staleness() -> None:
    collecting = collector()
    collecting.take(make_update([1.0], client="a", round_number=4, num_examples=2))
    collecting.take_late(make_update([7.0], client="b", round_number=1, num_examples=6), max_staleness=5)
    collected = collecting.finish(min_clients=2)
    assert collected.aggregate is not None
    # (2 * 1 + 6 * 0.5 * 7) / (2 + 6 * 0.5), by hand
    assert collected.aggregate.delta.numpy() == pytest.approx([23.0 / 5.0])
    assert (collected.num_updates, collected.num_examples) == (2, 8)
    assert collected.late == [LateRecord(client="b", round=1, factor=0.5)]
    # (2 + 6 * 0.5) / (2 + 6)
    assert collected.aggregate.freshness == pytest.approx(5 / 8)


def test_what_is_too_stale_unusable_or_failed_is_recorded_and_does_not_count() -> None:
    collecting = collector(number=9)
    collecting.take_late(make_update([1.0], client="a", round_number=3), max_staleness=5)
    collecting.take_late(make_update([np.nan], client="b", round_number=8), max_staleness=5)
    collecting.take_late(ClientFailure(client="c", round=8, kind="ValueError", message="no"), max_staleness=5)
    collected = collecting.finish(min_clients=1)
    assert collected.aggregate is None
    assert collected.late == [
        LateRecord(client="a", round=3, factor=0.0),
        LateRecord(client="b", round=8, factor=0.0),
        LateRecord(client="c", round=8, factor=0.0),
    ]
    assert [f.kind for f in collected.failures] == ["TooStale", "NonFiniteUpdateError", "ValueError"]
    assert "came 6 rounds late; max_staleness is 5" in collected.failures[0].message


def test_who_is_not_awaited_has_not_failed() -> None:
    collecting = collector()
    for client, kind in (("a", ReplyFailure.SPARE), ("b", ReplyFailure.LATE), ("c", ReplyFailure.DEADLINE)):
        collecting.take(ClientFailure(client=client, round=4, kind=kind, message="x"))
    collected = collecting.finish(min_clients=1)
    assert collected.not_awaited == ["a", "b"]
    assert [(f.client, f.kind) for f in collected.failures] == [("c", "deadline")]


@pytest.mark.parametrize(("clients", "told"), [("aabb", "needs at least 3 updates"), ("aaab", "")])
def test_a_round_whose_groups_are_all_too_small_says_so(clients: str, told: str) -> None:
    groups = {name: Group(name=name, broadcast=Broadcast(make_params([0.0]))) for name in "ab"}
    pipeline = Pipeline(aggregator=Robust(rule=Median(), attackers=1))
    collecting = Collector(pipeline, SPEC, 4, lambda _: None, group_of=lambda update: groups[update.client[0]])
    for i, name in enumerate(clients):
        collecting.take(make_update([1.0], client=f"{name}{i}", round_number=4))
    collected = collecting.finish(min_clients=1)
    assert told in collected.too_few
    assert bool(told) == bool(collected.too_few)
    assert list(collected.groups) == ([] if told else ["a"])


class Scalar:
    name, preprocess, objective = "fake", None, ("loss", "min")

    def init_params(self, seed: int) -> Params:
        return make_params([0.0])

    def metrics(self, sums: Any) -> dict[str, float]:
        return {}

    def check(self, x: np.ndarray, y: np.ndarray) -> None:
        pass


@dataclass
class Slow:
    """A transport of asynchronous rounds: `slow` clients answer a round later; nothing is forgotten uncommitted."""

    journal: MemoryJournal
    slow: frozenset[str] = frozenset()
    clients: Sequence[str] = CLIENTS
    asked: list[tuple[str, ...]] = field(default_factory=list)
    pending: dict[str, int] = field(default_factory=dict)

    def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[Reply]:
        assert isinstance(phase, TrainPhase)
        self.asked.append(tuple(clients))
        for client in clients:
            if client in self.slow:
                self.pending[client] = phase.round
                yield ClientFailure(client=client, round=phase.round, kind=ReplyFailure.LATE, message="later")
            else:
                yield make_update([1.0], client=client, round_number=phase.round)

    def working(self) -> Collection[str]:
        return self._uncommitted()

    def late(self, round_number: int) -> Iterator[Reply]:
        for client, number in self._uncommitted().items():
            if number < round_number:
                yield make_update([1.0], client=client, round_number=number)

    def _uncommitted(self) -> dict[str, int]:
        taken = {(u.client, u.round) for r in self.journal.history(("loss", "min")).rounds for u in r.late}
        return {c: n for c, n in self.pending.items() if (c, n) not in taken}

    def close(self) -> None:
        pass


def run(transport: Any, journal: MemoryJournal, *, pipeline: Pipeline | None = None, **changes: Any) -> RunOutcome:
    parts = RunParts(
        strategy=FedAvg(),
        task=Scalar(),  # type: ignore[arg-type]
        pipeline=pipeline or Pipeline(),
        transport=transport,
        journal=journal,
        population=Population(CLIENTS, np.ones(4, dtype=np.int64)),
        federation=FederationSettings(stragglers="buffer", max_staleness=2),
    )
    told: dict[str, Any] = {"rounds": 4, "evaluate": EvaluateSettings(clients="none"), **changes}
    return run_rounds(parts, RoundSettings(**told), emit=lambda _: None)


def test_each_late_update_counts_once_and_its_client_is_not_asked_meanwhile() -> None:
    journal = MemoryJournal()
    transport = Slow(journal, slow=frozenset("bd"))
    outcome = run(transport, journal)
    assert transport.asked == [("a", "b", "c", "d"), ("a", "c"), ("a", "b", "c", "d"), ("a", "c")]
    late = [[(u.client, u.round) for u in record.late] for record in outcome.history.rounds]
    assert late == [[], [], [("b", 1), ("d", 1)], [], [("b", 3), ("d", 3)]]
    assert [record.num_updates for record in outcome.history.rounds] == [0, 2, 4, 2, 4]
    assert outcome.history.rounds[1].not_awaited == ("b", "d")
    assert all(not record.failures for record in outcome.history.rounds)


def test_a_cohort_is_filled_up_to_its_size_with_those_that_work() -> None:
    journal = MemoryJournal()
    transport = Slow(journal, slow=frozenset(CLIENTS))
    run(transport, journal, cohort=Uniform(size=3), rounds=2, min_clients=1)
    assert [len(cohort) for cohort in transport.asked] == [3, 0]


class Demanding(Mean):
    """Opens no sum of fewer than three, as a secure sum with a threshold would."""

    def finish(self, accumulator: Any) -> Aggregate:
        if accumulator.num_clients < 3:
            raise TooFewClientsError(f"{accumulator.num_clients} updates came, three are needed")
        return super().finish(accumulator)


@dataclass
class Failing:
    kind: Callable[[int, str], str | None]
    clients: Sequence[str] = CLIENTS

    def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[Reply]:
        for client in clients:
            kind = self.kind(phase.round, client)
            if kind is None:
                yield make_update([1.0], client=client, round_number=phase.round)
            else:
                yield ClientFailure(client=client, round=phase.round, kind=kind, message="gone")

    def close(self) -> None:
        pass


def test_an_aggregator_that_finds_too_few_costs_the_round_not_the_run() -> None:
    transport = Failing(lambda number, client: ReplyFailure.LOST if number == 1 and client in "cd" else None)
    outcome = run(transport, MemoryJournal(), pipeline=Pipeline(aggregator=Demanding()), rounds=2)
    assert [record.status for record in outcome.history.rounds[1:]] == ["abandoned", "finished"]
    assert outcome.history.rounds[1].note == ("abandoned: 2 updates came, three are needed; the model stays as it was")
    assert outcome.state.params.numpy().tolist() == [1.0]


def test_sites_that_are_away_do_not_say_that_the_job_is_wrong() -> None:
    lost = run(Failing(lambda number, client: ReplyFailure.LOST), MemoryJournal())
    assert [record.status for record in lost.history.rounds[1:]] == ["abandoned"] * 4
    with pytest.raises(RunError, match="every client failed"):
        run(Failing(lambda number, client: ReplyFailure.DEADLINE), MemoryJournal())


def test_of_an_abandoned_round_the_late_updates_are_left_for_the_next() -> None:
    journal = MemoryJournal()
    transport = Slow(journal, slow=frozenset("abc"))
    outcome = run(transport, journal, min_clients=5, rounds=2)
    assert [record.status for record in outcome.history.rounds[1:]] == ["abandoned"] * 2
    assert all(not record.late for record in outcome.history.rounds)
    assert [(u.client, u.round) for u in transport.late(3)] == [("a", 1), ("b", 1), ("c", 1)]
