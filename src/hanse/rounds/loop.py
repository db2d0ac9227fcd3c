"""The round loop: select, broadcast, train, aggregate, step, evaluate, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PrivacyBudgetError, RunError, RunInterrupted
from hanse.core.events import ClientFailed, Noted, RoundFinished, RoundStarted, Sink
from hanse.core.grouped import Grouped
from hanse.core.judged_round import Memory
from hanse.core.local_work import LocalWork
from hanse.core.messages import (
    Broadcast,
    ClientFailure,
    EvaluatePhase,
    Phase,
    Reply,
    Statistics,
    Sums,
    TrainPhase,
)
from hanse.core.params import Params
from hanse.core.protocols import Judges, ServerState
from hanse.core.randomness import stream
from hanse.core.units import plural
from hanse.rounds.clocked import Clocked
from hanse.rounds.cohorts import Asked, Cohorts
from hanse.rounds.collector import Collected
from hanse.rounds.evaluation import means
from hanse.rounds.federated_statistics import ask_for_statistics
from hanse.rounds.held_rounds import HeldRounds
from hanse.rounds.history import RoundRecord
from hanse.rounds.initial_state import initial_state
from hanse.rounds.lost_clients import num_lost, num_telling
from hanse.rounds.measuring import Measuring, on_clients
from hanse.rounds.round_groups import RoundGroups
from hanse.rounds.round_training import RoundTraining
from hanse.rounds.run_parts import RunOutcome, RunParts
from hanse.rounds.sending import Sending
from hanse.rounds.settings import RoundSettings
from hanse.rounds.stopping import ObjectiveTracker

_TELLING = 10  # failures without any success that say that it is not the clients: fewer where there are fewer clients


def run_rounds(
    parts: RunParts, settings: RoundSettings, *, emit: Sink, stop_requested: Callable[[], bool] = lambda: False
) -> RunOutcome:
    """Run all rounds that the journal does not hold yet.

    Args:
      parts: What the run is made of.
      settings: What the loop is told.
      emit: Receives every event.
      stop_requested: Asked after each client's reply; True ends the run, resumable.

    Raises:
      RunInterrupted: `stop_requested` said so.
      RunError: No client could ever deliver an update.
      StorageError: The journal could not be written; committed rounds are safe.
    """
    return _Loop(parts, settings, emit, stop_requested).run()


class _Loop:
    def __init__(
        self, parts: RunParts, settings: RoundSettings, emit: Sink, stop_requested: Callable[[], bool]
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._spans = parts.spans
        self._emit = self._spans.calls("events", emit)
        self._stop_requested = stop_requested
        self._seconds: dict[str, float] = {}
        self._statistics: Statistics = {}
        hidden = parts.pipeline.adds_numbers
        self._held = HeldRounds(
            transport=parts.transport,
            sums=parts.sums,
            federation=parts.federation,
            cohort=settings.cohort,
            population=len(parts.population.clients),
        )
        self._clock = parts.transport if isinstance(parts.transport, Clocked) else None
        self._numbers = parts.numbers(self._exchange) if parts.numbers is not None and hidden else None
        self._measure = Measuring(parts, settings, self._exchange, self._numbers)
        # hidden updates are encoded for as many as may be at work, and privacy is accounted for before a round
        settled = parts.pipeline.hides_replies or parts.privacy is not None
        self._cohorts = Cohorts(
            settings.cohort,
            parts.population,
            reserves=0 if settled else settings.reserves,
            transport=parts.transport,
            held=self._held,
            exchange=self._exchange,
        )
        self._traffic = 0, 0  # bytes up and down of the sum of statistics, until a record has them
        self._delivered = False
        self._lost = 0  # failures of clients in training, in rounds that were abandoned
        self._last: int | None = None  # the newest committed round; records stay with the journal alone
        self._tracker = ObjectiveTracker(parts.task.objective, settings.stop)
        self._journal_seconds = 0.0
        self._accepted: dict[str, int] = {}
        self._stages = parts.pipeline.initial_states()
        self._memory: Memory = {}  # the aggregator's, durable
        self._told_of: set[str] = set()  # clients in quarantine of whom a person was told
        self._send = Sending(parts.strategy, parts.pipeline, seed=settings.seed, initial=self._initial_params)
        self._train = RoundTraining(
            parts,
            settings,
            held=self._held,
            tells=self._cohorts.tells,
            emit=self._emit,
            exchange=self._exchange,
            check_stop=self._check_stop,
        )

    def run(self) -> RunOutcome:
        parts, settings = self._parts, self._settings
        self._spans.take()  # what was before belongs to no round
        settings.cohort.check(parts.population)
        state = self._initial_state()
        records = parts.journal.history(parts.task.objective).rounds
        self._tracker = ObjectiveTracker(parts.task.objective, settings.stop, records)
        self._statistics = self._federated_statistics()
        if records:
            state = parts.journal.state(state)
            self._delivered = any(record.num_updates for record in records)  # abandoned rounds too
            self._lost = sum(num_lost(record) for record in records)
            for record in records:
                self._accept(record)
                self._cohorts.learn(record)
                if self._clock is not None:
                    self._clock.committed(record)
            if parts.privacy is not None:
                parts.privacy.went_on(records)
            self._last = records[-1].round
            self._stages |= records[-1].stages
            self._memory = parts.journal.memory()
        else:
            self._commit(self._round_zero(state), state)
        del records
        while (done := self._last or 0) < settings.rounds:
            reason = self._tracker.reason_to_stop
            if reason is not None:
                self._emit(Noted(message=f"stopped early after round {done}: {reason}"))
                return self._outcome("stopped early", state)
            try:
                record, state = self._round(done + 1, state)
            except PrivacyBudgetError as error:
                if not done:
                    raise
                self._emit(Noted(message=f"stopped after round {done}: {error.message}"))
                return self._outcome("stopped early", state)
            self._commit(record, state)
        return self._outcome("finished", state)

    def _outcome(self, status: Literal["finished", "stopped early"], state: ServerState) -> RunOutcome:
        # read again: what each client scored in each round is too much to keep beside it while the run goes on
        history = self._parts.journal.history(self._parts.task.objective)
        return RunOutcome(status=status, state=state, history=history)

    def _initial_state(self) -> ServerState:
        parts = self._parts
        return initial_state(
            parts.strategy, parts.population.clients, seed=self._settings.seed, make=self._initial_params
        )

    def _initial_params(self, seed: int | None = None) -> Params:
        whole = self._parts.task.init_params(self._settings.seed if seed is None else seed)
        personal = whole.spec.matching(self._parts.strategy.local_work(1).personal)
        return whole.select(whole.spec.without(personal))

    def _federated_statistics(self) -> Statistics:
        """Sums over all clients' training inputs, asked for once a run."""
        preprocess, journal = self._parts.task.preprocess, self._parts.journal
        if preprocess is None or preprocess.scope != "federated":
            return {}
        known = journal.statistics()
        if known is not None:
            return known
        found = ask_for_statistics(
            self._parts, self._numbers, exchange=self._exchange, emit=self._emit, spans=self._spans
        )
        if self._numbers is not None:
            self._traffic = found.bytes_up, found.bytes_down
        for reply in found.failures:
            self._report_failure(reply)
        if not found.numbers:
            why = f": {found.abandoned}" if found.abandoned else ""
            raise RunError(
                f"no client could sum up its inputs for federated preprocessing{why}", hint="see the failures above"
            )
        journal.write_statistics(found.numbers)
        return found.numbers

    def _round_zero(self, state: ServerState) -> RoundRecord:
        self._seconds = {}
        record = RoundRecord(round=0, bytes_up=self._traffic[0], bytes_down=self._traffic[1])
        record = self._timed(record)
        if not self._settings.evaluate.initial:
            return record
        with self._spans("evaluation"):
            return self._measured(record, state)

    def _round(self, number: int, state: ServerState) -> tuple[RoundRecord, ServerState]:
        parts, self._seconds = self._parts, {}
        began = time.perf_counter()
        seed, privacy = self._settings.seed, parts.privacy
        rng = stream(seed, "cohort", number) if privacy is None else privacy.cohort_randomness(number)
        out = self._quarantined()
        asked = self._cohorts.asked(number, rng, self._survey(number, state), without=out)
        cohort = asked.cohort
        self._spent("select", began)
        if privacy is not None:
            privacy.admit(number, cohort)
        self._emit(RoundStarted(round=number, cohort=cohort[: len(cohort) - asked.reserves]))
        strategy = parts.strategy
        began = time.perf_counter()
        with self._spans("stages"):
            broadcast, groups = self._send(number, state, cohort, self._stages)
        if broadcast.sent is not None:
            self._spent("encode", began)
        began = time.perf_counter()
        collected = self._train(self._phase(number, asked, broadcast, groups), cohort, groups, memory=self._memory)
        self._delivered = self._delivered or collected.num_updates > 0
        self._seconds["aggregate"] = collected.seconds
        self._spent("train", began + collected.seconds)
        cohort = tuple(client for client in cohort if client not in collected.unasked)
        note = self._abandoned(number, collected, len(cohort))
        if note and out:
            note += f"; {plural(len(out), 'client')} in quarantine"
        if not note and collected.aggregate is not None:
            began = time.perf_counter()
            self._stages = parts.pipeline.next_states(self._stages, collected.aggregate)
            self._memory = collected.aggregate.memory
            with self._spans("aggregation"):
                state = strategy.step(state, self._told(collected.aggregate, collected.sums))
            self._spent("aggregate", began)
        elif not note and collected.groups and isinstance(strategy, Grouped):
            began = time.perf_counter()
            with self._spans("aggregation"):
                population = len(parts.population.clients)
                told = {name: replace(found, population=population) for name, found in collected.groups.items()}
                state = strategy.step_groups(state, told)
            self._spent("aggregate", began)
        private = privacy is not None
        measured = collected.aggregate.measured if collected.aggregate is not None else {}
        if groups is not None:
            measured = groups.lengths(collected.groups)
        record = RoundRecord(
            round=number,
            status="abandoned" if note else "finished",
            cohort=cohort,
            failures=(*asked.failures, *collected.failures),
            not_awaited=tuple(collected.not_awaited),
            num_updates=collected.num_updates,
            # of an abandoned round the late updates are left for the next
            late=tuple(update for update in collected.late if not note or not update.factor),
            # what clients tell of their training has no noise: a private run keeps none of it
            num_examples=0 if note or private else collected.num_examples,
            train={} if private else means(collected.sums),
            bytes_down=(groups.nbytes(cohort) if groups is not None else broadcast.nbytes * len(cohort))
            + collected.bytes_down
            + asked.bytes_down,
            bytes_up=collected.bytes_up,
            note=note or collected.note,
            stages=self._stages,
            measured={} if note else measured,
            trained=tuple(collected.trained),
            client_seconds=collected.client_seconds,
            groups=groups.landed(cohort, collected.landed) if groups is not None else (),
            attack={} if parts.attack is None else {"members": float(len(parts.attack.among(cohort, number)))},
            verdicts=() if note or collected.aggregate is None else collected.aggregate.verdicts,
        )
        record = self._timed(record)
        self._accept(record)
        every = self._settings.evaluate.every
        due = number % every == 0 or number == self._settings.rounds
        if not due:
            return record, state
        with self._spans("evaluation"):
            return self._measured(record, state), state

    def _quarantined(self) -> frozenset[str]:
        """Clients that are not asked any more; who has come among them is told once."""
        aggregator = self._parts.pipeline.aggregator
        out = aggregator.quarantined(self._memory) if isinstance(aggregator, Judges) and self._memory else {}
        for client in sorted(set(out) - self._told_of):
            self._emit(Noted(message=f"client `{client}` is not asked any more: {out[client]}"))
        self._told_of |= set(out)
        return frozenset(out)

    def _timed(self, record: RoundRecord) -> RoundRecord:
        """The record with what a simulated clock says."""
        if self._clock is None:
            return record
        own = {} if self._train.quiet else self._clock.client_seconds
        return replace(record, simulated_seconds=self._clock.seconds, client_seconds=own)

    def _survey(self, number: int, state: ServerState) -> Callable[[Sequence[str], int | None], EvaluatePhase]:
        """How candidates of a round are asked for the model's loss on their training examples."""

        def phase(candidates: Sequence[str], examples: int | None) -> EvaluatePhase:
            asked = on_clients(self._parts.strategy, number - 1, state, self._statistics, candidates, self._accepted_of)
            return replace(asked, split="train", examples=examples)

        return phase

    def _phase(self, number: int, asked: Asked, broadcast: Broadcast, groups: RoundGroups | None) -> TrainPhase:
        """What a round's clients are asked to do."""
        work = self._parts.pipeline.protected(self._parts.strategy.local_work(number))
        return TrainPhase(
            round=number,
            broadcast=broadcast,
            work=work,
            statistics=self._statistics,
            accepted=self._accepted_of(asked.cohort) if self._keeps(work) else {},
            cohort=self._train.told_size(len(asked.cohort)),
            stages=self._stages,
            groups=() if groups is None else groups.groups,
            reserves=asked.reserves,
        )

    def _told(self, aggregate: Aggregate, sums: Sums) -> Aggregate:
        """The aggregate with what the strategy is told beside it; in a private run nothing that has no noise."""
        told = {} if self._parts.privacy is not None else sums
        return replace(aggregate, sums=told, population=len(self._parts.population.clients))

    def _report_failure(self, reply: ClientFailure) -> None:
        self._emit(ClientFailed(round=reply.round, client=reply.client, kind=reply.kind, message=reply.message))

    def _abandoned(self, number: int, collected: Collected, asked: int) -> str:
        """Why the round does not count, or an empty string."""
        if collected.too_few:
            return f"abandoned: {collected.too_few}; the model stays as it was"
        fewest = self._train.fewest(asked)
        if collected.num_updates >= max(1, fewest):
            return ""
        self._lost += num_telling(collected.failures)
        enough = min(_TELLING, len(self._parts.population.clients))
        if (
            not self._delivered
            and num_telling(collected.failures)
            and (self._lost >= enough or number == self._settings.rounds)
        ):
            first, privacy = collected.failures[0], self._parts.privacy
            which = f"; the first of this round: `{first.client}`: {first.message}"
            raise RunError(
                f"round {number}: every client failed, and none has delivered yet"
                f"{'' if privacy is not None and privacy.secret_cohorts else which}",
                hint="run with --debug and one worker to see where it fails",
            )
        if not fewest:
            return ""
        return (
            f"abandoned: {collected.num_updates} of {asked} clients delivered a usable update, "
            f"{'the secure sum needs' if fewest > self._settings.min_clients else 'min_clients is'} {fewest}; "
            "the model stays as it was"
        )

    def _measured(self, record: RoundRecord, state: ServerState) -> RoundRecord:
        """The record with metrics of the state's model."""
        began = time.perf_counter()
        found = self._measure(record, state, self._statistics, self._accepted_of)
        self._spent("evaluate", began)
        if found.note != record.note:
            self._emit(Noted(message=f"round {record.round}: {found.note.removeprefix(record.note).lstrip('; ')}"))
        return found

    def _accept(self, record: RoundRecord) -> None:
        """Remember whose updates counted, where clients keep vectors that must not run ahead of them."""
        if record.round and self._keeps(self._parts.strategy.local_work(record.round)):
            for client, number in record.accepted():
                self._accepted[client] = max(number, self._accepted.get(client, 0))

    def _keeps(self, work: LocalWork) -> bool:
        """Whether clients keep vectors from round to round."""
        return work.remembers or self._parts.pipeline.remembers

    def _accepted_of(self, clients: Sequence[str]) -> dict[str, int]:
        return {client: self._accepted.get(client, 0) for client in clients}

    def _commit(self, record: RoundRecord, state: ServerState) -> None:
        began = time.perf_counter()
        seconds = {**self._seconds, "journal": self._journal_seconds}
        record = replace(record, seconds=seconds, profile=self._spans.take())
        self._tracker.add(record)
        with self._spans("journal"):
            self._parts.journal.commit(record, state, best_round=self._tracker.best_round, memory=self._memory)
        if self._clock is not None:
            self._clock.committed(record)
        self._last = record.round
        self._cohorts.learn(record)
        self._journal_seconds = time.perf_counter() - began
        self._emit(
            RoundFinished(
                round=record.round,
                status=record.status,
                num_updates=record.num_updates,
                num_failures=len(record.failures),
                train=record.train,
                central=record.central,
                federated=record.federated,
                personal=record.personal,
                bytes_up=record.bytes_up,
                bytes_down=record.bytes_down,
                seconds=record.seconds,
                note=record.note,
            )
        )
        self._check_stop()  # not before the commit: a round that is complete is not thrown away

    def _exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[Reply]:
        for reply in self._parts.transport.exchange(phase, clients):
            yield reply
            self._check_stop()

    def _check_stop(self) -> None:
        if self._stop_requested():
            raise RunInterrupted("stopped on request; committed rounds are safe", hint="go on with: hanse resume")

    def _spent(self, phase: str, began: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - began
