"""Asynchronous rounds with hidden updates: what came late is in a later round's sum, once, to the bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hanse.aggregators.hidden_sum import GivenSum
from hanse.aggregators.light_sum import LightSum
from hanse.aggregators.secure_sum import SecureSum
from hanse.aggregators.sum import Sum
from hanse.aggregators.told_numbers import layout_of
from hanse.core.errors import PipelineError
from hanse.core.judged_round import Memory
from hanse.core.messages import Broadcast, ClientFailure, Held, Phase, SumMessage, SumPhase, TrainPhase, Update
from hanse.core.messages import Reply as CoreReply
from hanse.core.params import Params
from hanse.core.protocols import Aggregator, ServerState, Stage
from hanse.federation.protocol import HeldReply, Reply
from hanse.federation.server.transport import FederationTransport
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.clip import Clip
from hanse.pipeline.distributed import DistributedNoise
from hanse.pipeline.encodings import flat_spec
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.rotate import Rotate
from hanse.privacy.budget import Budget
from hanse.rounds.checks import check_asynchronous
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.collector import Collector
from hanse.rounds.held_answers import HeldAnswer, HeldAnswers, HeldInFolder
from hanse.rounds.history import RoundRecord
from hanse.rounds.journal import MemoryJournal
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settle import check_timely
from hanse.rounds.run_parts import RunOutcome
from hanse.rounds.selection import Everyone, Poisson, Selector, Uniform
from hanse.rounds.settings import EvaluateSettings, FederationSettings, RoundSettings
from hanse.rounds.sum_diary import DiaryFile
from hanse.rounds.sum_names import name_of_sum
from hanse.strategies.fedavg import FedAvg
from tests.federation.sum_world import PIPELINE, STEPS, TASK, Dropping, Killed, Killing, World, factory

SITES = {f"at-{number}": (f"site-{number}",) for number in range(5)}
LIGHT = LightSum(threshold=0.4, min_survivors=2, corrupt=0.0)
BUFFERED = FederationSettings(stragglers="buffer", over_select=1.25)
COHORT = Uniform(size=5)  # enlarged from 4
MEASURED = EvaluateSettings(clients="none", initial=False)  # clients that train would be waited for
SETTINGS = RoundSettings(rounds=2, seed=7, min_clients=2, cohort=COHORT, evaluate=MEASURED)


class Committing(MemoryJournal):
    """A journal that removes from the coordinator's book what a commit takes in, as the database's does."""

    world: Slow

    def commit(
        self, record: RoundRecord, state: ServerState, *, best_round: int | None, memory: Memory | None = None
    ) -> None:
        super().commit(record, state, best_round=best_round, memory=memory)
        late = {(update.client, update.round) for update in record.late}
        self.world.coordinator.work.commit("run", record.round, late)
        if (gate := self.world.gates.get(("after round", record.round))) is not None:
            gate.set()


class Slow(World):
    """Five sites of one client each; some of their answers wait for a gate."""

    def __init__(self, folder: Path, aggregator: Aggregator = LIGHT) -> None:
        super().__init__(folder, replace(PIPELINE, aggregator=aggregator), SITES)
        self.max_staleness, self.settings = 5, SETTINGS
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.held: dict[tuple[str, int], np.ndarray] = {}
        self.journal = Committing()
        self.journal.world = self
        self.hold = self._wait
        # in round 1 the fifth is too late, in round 2 the fourth; the fifth comes once round 1 is over
        self.gates["after round", 1] = self.gates["site-4", 1] = threading.Event()
        self.gates["site-3", 2] = threading.Event()

    def _wait(self, site: str, reply: Reply) -> None:
        if isinstance(reply, HeldReply) and (gate := self.gates.get((reply.client, reply.round))) is not None:
            gate.wait(timeout=30)

    def store(self, site: str) -> HeldInFolder:
        seen = self.held

        class Seen(HeldInFolder):
            def save(self, client: str, purpose: str, held: HeldAnswer) -> None:
                seen[client, held.round] = held.values["update"].copy()
                super().save(client, purpose, held)

        return Seen(self.folder / "held" / site)

    def everybody(self, wrap: Callable[[HeldAnswers], object] = lambda inner: inner) -> Slow:
        for site in SITES:
            self.open(site, lambda runtime, run, site=site: wrap(self.answers(runtime, site, run)))  # type: ignore[misc]
        return self

    def answers(self, runtime: ClientRuntime, site: str, run: str) -> HeldAnswers:
        return HeldAnswers(runtime, self.rules(site, run), self.store(site))

    def buffered(self) -> FederationTransport:
        return self.transport(settings=BUFFERED, goal=4, min_clients=2)

    def go(self, transport: object = None) -> RunOutcome:
        return self.run(transport or self.buffered(), self.journal, federation=BUFFERED)  # type: ignore[arg-type]

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        super().close()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    made = Slow(tmp_path)
    yield made
    made.close()


def plain(held: Mapping[tuple[str, int], np.ndarray], rounds: list[list[tuple[str, int]]]) -> str:
    """The model after rounds of plain sums of these vectors."""
    strategy = FedAvg(weighting="uniform")
    state = strategy.init(TASK.init_params(SETTINGS.seed))
    for number, members in enumerate(rounds, 1):
        given = PipelineRound(round=number, seed=SETTINGS.seed, cohort=COHORT.size, states={})
        spec = state.params.spec
        bound = replace(PIPELINE, aggregator=Sum()).in_round(given, spec)
        collector = Collector(bound, spec, number, lambda event: None)
        for member in sorted(members):
            values = held[member]
            delta = Params(flat_spec("residues", len(values), values.dtype.name), values)
            collector.take(Update(client=member[0], round=number, delta=delta, num_examples=1, num_steps=1))
        aggregate = collector.finish(min_clients=2).aggregate
        assert aggregate is not None
        state = strategy.step(state, aggregate)
    return state.params.sha256()


FIRST = [(f"site-{number}", 1) for number in range(4)]
SECOND = [*((f"site-{number}", 2) for number in range(3)), ("site-4", 1)]


def check(slow: Slow, outcome: RunOutcome) -> None:
    one, two = outcome.history.rounds[1:]
    assert (one.num_updates, two.num_updates) == (4, 4)
    assert one.not_awaited == ("site-4",)
    assert [(update.client, update.round, update.factor) for update in two.late] == [("site-4", 1, 1.0)]
    assert not one.failures
    assert not two.failures
    assert outcome.state.params.sha256() == plain(slow.held, [FIRST, SECOND])
    assert outcome.state.params.sha256() != plain(slow.held, [FIRST, SECOND[:3]])


@pytest.mark.parametrize("aggregator", [LIGHT, SecureSum(threshold=0.4, min_survivors=2)], ids=["light", "pairwise"])
def test_a_late_update_is_in_the_next_rounds_sum_to_the_bit(tmp_path: Path, aggregator: Aggregator) -> None:
    slow = Slow(tmp_path, aggregator).everybody()
    try:
        outcome = slow.go()
        check(slow, outcome)
        assert "site-4" not in outcome.history.rounds[2].cohort  # it was at work, and then held what it had made
        assert slow.store("at-4").given_away("site-4", "update") == 1
        kinds = {type(reply).__name__ for _, reply in slow.replies}
        assert kinds == {"HeldReply", "SumReply"}
    finally:
        slow.close()


@pytest.mark.parametrize("after", [2, 9])
@pytest.mark.parametrize("step", STEPS)
def test_a_coordinator_that_is_killed_in_a_sum_with_late_updates_goes_on(slow: Slow, step: str, after: int) -> None:
    slow.everybody()

    class InRoundTwo(Killing):
        holds_back = True

        def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[CoreReply]:
            strikes = isinstance(phase, SumPhase) and phase.round == 2 and phase.step == step
            yield from super().exchange(phase, clients) if strikes else self._inner.exchange(phase, clients)

        def working(self) -> Collection[str]:
            return self._inner.working()

        def late(self, round_number: int) -> Iterator[CoreReply]:
            return self._inner.late(round_number)

    with pytest.raises(Killed):
        slow.go(InRoundTwo(slow.buffered(), step, after))
    slow.coordinator.restart()
    check(slow, slow.go())


@pytest.mark.parametrize("step", STEPS)
def test_a_late_client_that_is_lost_in_the_sum_is_in_it_or_not(slow: Slow, step: str) -> None:
    slow.everybody(lambda inner: Dropping(inner, "site-4", step))
    outcome = slow.go()
    two = outcome.history.rounds[2]
    arrived = STEPS.index(step) > STEPS.index("inputs")
    assert [(update.client, update.round, update.factor) for update in two.late] == [("site-4", 1, float(arrived))]
    lost = [(failure.client, failure.during) for failure in two.failures]
    assert lost == ([] if arrived else [("site-4", "late")])
    second = SECOND if arrived else SECOND[:3]
    assert outcome.state.params.sha256() == plain(slow.held, [FIRST, second])


def test_what_is_too_stale_is_in_no_sum() -> None:
    spec = TASK.init_params(1).spec
    bound = PIPELINE.in_round(PipelineRound(round=3, seed=1, cohort=5, states={}), spec)
    collector = Collector(replace(bound, aggregator=Sum()), spec, 3, lambda event: None)
    collector.take_late(Held(client="site-4", round=1), max_staleness=1)
    collected = collector.finish(min_clients=9)
    assert [(failure.kind, failure.during) for failure in collected.failures] == [("TooStale", "late")]
    assert [(update.client, update.round, update.factor) for update in collected.late] == [("site-4", 1, 0.0)]


def test_a_site_adds_what_it_holds_of_earlier_rounds_where_the_job_says_so(slow: Slow, tmp_path: Path) -> None:
    runtime = factory(tmp_path / "own", slow.pipeline)()
    for late, told in ((True, ""), (False, "sums updates with those of their own round")):
        slow.max_staleness = 5 if late else 0
        held = HeldAnswers(runtime, slow.rules("at-4", "run"), HeldInFolder(tmp_path / f"held-{late}"))
        train = TrainPhase(
            round=1, broadcast=Broadcast(params=TASK.init_params(7)), work=FedAvg().local_work(1), cohort=5
        )
        kept = next(held.answer(train, ["site-4"]))
        assert isinstance(kept, Held)
        layout = layout_of(TASK.init_params(7).spec.size, 20, kept.told)
        name = name_of_sum("run", {1: ""})
        this = GivenSum(run=name, round=2, purpose="update", attempt=0, asked=5, least=3, layout=layout)
        server = LIGHT.sum_at_server(this, [client for (client,) in SITES.values()], verify=slow.verify)
        order = SumPhase(
            round=2,
            step="keys",
            asked=5,
            least=3,
            told=kept.told,
            questions={1: ""},
            messages={"site-4": server.advance()["site-4"]},
            of_rounds={"site-4": 1},
        )
        reply = next(held.answer(order, ["site-4"]))
        assert isinstance(reply, SumMessage if late else ClientFailure)
        if isinstance(reply, ClientFailure):
            assert told in reply.message
        ahead = replace(order, attempt=1, of_rounds={"site-4": 3})
        assert isinstance(next(held.answer(ahead, ["site-4"])), ClientFailure)


def test_a_diary_remembers_whom_a_round_asks_and_who_is_in_its_sum(tmp_path: Path) -> None:
    diary = DiaryFile(tmp_path / "diary.json")
    assert diary.cohort(3, lambda: ("a", "b")) == ("a", "b")
    diary.begin(3, "update")
    assert diary.members({"a": 3, "z": 1}) == {"a": 3, "z": 1}
    again = DiaryFile(tmp_path / "diary.json")
    assert again.cohort(3, lambda: ("c",)) == ("a", "b")
    again.begin(3, "update")
    assert again.members({"b": 3}) == {"a": 3, "z": 1}
    assert again.cohort(4, lambda: ("c",)) == ("c",)
    again.begin(4, "update")
    assert again.members({"b": 3}) == {"b": 3}
    assert again.cohort(4, tuple) == ("c",)


@pytest.mark.parametrize(
    ("stages", "cohort", "told"),
    [
        ((Clip(norm=2.0), Modular(bits=20, range=2.0)), Uniform(size=5), ""),
        ((Clip(norm=2.0), Modular(bits=20, range=2.0)), Everyone(), ""),
        ((Clip(norm=2.0), Rotate(), Modular(bits=20, range=2.0)), Uniform(size=5), "`Rotate` works another way"),
        ((Clip(norm=2.0), Modular(bits=20, range=2.0)), Poisson(rate=0.5), "one size of cohort"),
    ],
)
def test_what_encodes_alike_in_all_rounds_may_be_buffered(
    stages: tuple[Stage, ...], cohort: Selector, told: str
) -> None:
    pipeline = Pipeline(stages=stages, aggregator=LIGHT, weighting="uniform")
    if not told:
        check_asynchronous(pipeline, BUFFERED, cohort)
        with pytest.raises(PipelineError, match=r"weigh alike|another way"):
            check_asynchronous(replace(pipeline, aggregator=Sum()), BUFFERED, cohort)
    else:
        with pytest.raises(PipelineError, match=told):
            check_asynchronous(pipeline, BUFFERED, cohort)
    check_asynchronous(pipeline, FederationSettings(), cohort)


def test_noise_in_shares_is_not_buffered() -> None:
    promise = PrivacySettings(mechanism=DistributedNoise(), budget=Budget(epsilon=8.0, delta=1e-5))
    with pytest.raises(Exception, match="relies on who takes part when"):
        check_timely(promise, FederationSettings(stragglers="buffer"))
