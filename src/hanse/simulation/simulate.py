"""`simulate`: a federated run on this machine, from Python objects."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from hanse.core.errors import RunInterrupted, StorageError
from hanse.core.events import Event, Noted, RoundFinished, RunEnded, RunStarted, Sink, fan_out
from hanse.core.garbage_collection import set_aside
from hanse.core.messages import Statistics, Sums
from hanse.core.params import Params
from hanse.core.protocols import Judges, Strategy, Transport
from hanse.data.federated import FederatedDataset
from hanse.pipeline.recipes import plain
from hanse.rounds.central import prepared
from hanse.rounds.evaluation import CentralEvaluation
from hanse.rounds.event_log import EventLog
from hanse.rounds.facts import opening_facts
from hanse.rounds.final_models import final_models
from hanse.rounds.hidden_numbers import Exchange
from hanse.rounds.history import History, RunRecord, RunStatus
from hanse.rounds.journal import FileJournal, Journal, MemoryJournal
from hanse.rounds.loop import run_rounds
from hanse.rounds.privacy.run import LEDGER, RunPrivacy, charged_as
from hanse.rounds.run_folder import CLIENTS, EVENTS, MODELS, UNDER_WAY, locked, new_run_folder
from hanse.rounds.run_parts import RunOutcome, RunParts
from hanse.rounds.selection import Everyone, Selector, Uniform
from hanse.rounds.server_examples import ServerExamples
from hanse.rounds.settings import RoundSettings
from hanse.rounds.simulated_numbers import SimulatedNumbers
from hanse.rounds.spans import NO_SPANS, Spans, SpanTimer
from hanse.simulation.attack.run import attacked_dataset, simulated_attack, under_attack
from hanse.simulation.checks import check_simulation
from hanse.simulation.clock.run import on_the_clock, with_cohorts
from hanse.simulation.device_memory import with_fitting_width
from hanse.simulation.engine import EngineSettings, RuntimeFactory, open_transport
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.pool import PoolTransport, by_workers
from hanse.simulation.robustness import robust_evaluation
from hanse.simulation.stop_signal import stop_on_signal
from hanse.simulation.stragglers import StragglingTransport
from hanse.simulation.trainer_choice import warm_up, with_chosen_trainer
from hanse.trainers.auto import make_trainer
from hanse.trainers.base import EvaluatesInBlocks
from hanse.trainers.threads import limited_threads


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """A run that has ended.

    Args:
      record: Everything that is said about it.
      params: The final model.
      best: The model of the best round, where models were compared; else the final one.
      statistics: What inputs are prepared with, where the task prepares them over the federation.
      groups: Of a strategy with several models, the final ones, by what records call their groups.
    """

    record: RunRecord
    params: Params
    best: Params
    statistics: Statistics = field(default_factory=dict)
    groups: Mapping[str, Params] = field(default_factory=dict)

    @property
    def history(self) -> History:
        """The committed rounds."""
        return self.record.history


def simulate(
    dataset: FederatedDataset,
    task: Any,
    strategy: Strategy[Any],
    *,
    rounds: int = 10,
    cohort: int | Selector | None = None,
    seed: int = 0,
    workers: int = 1,
    out: Path | str | None = None,
    name: str = "run",
) -> SimulatedRun:
    """Run a federation on this machine and return what came of it.

    Args:
      dataset: Who holds what.
      task: A task, or one that still has to be bound to the data (`hanse.tasks.Classification`, …).
      strategy: For example `hanse.FedAvg()`.
      rounds: Rounds, ≥ 1.
      cohort: Clients a round, drawn uniformly; or a selector; everybody by default.
      seed: Of all reproducible randomness.
      workers: Processes that clients run in; 1 is this process.
      out: Folder below which the run folder is made; None keeps nothing on disk.
      name: The run folder's name.

    Raises:
      HanseError: One of the kinds in `hanse.core.errors`.

    For everything else that can be set, build a `Simulation` and call `run_simulation`.
    """
    selector: Selector = Uniform(size=cohort) if isinstance(cohort, int) else cohort or Everyone()
    bound = bind_task(task, dataset)
    simulation = Simulation(
        dataset=dataset,
        task=bound,
        strategy=strategy,
        pipeline=plain(weighting=strategy.weighting),
        settings=RoundSettings(rounds=rounds, seed=seed, cohort=selector),
        engine=EngineSettings(workers=workers),
    )
    return run_simulation(simulation, folder=None if out is None else new_run_folder(Path(out), name), name=name)


def run_simulation(
    simulation: Simulation,
    *,
    folder: Path | None = None,
    name: str = "run",
    sinks: tuple[Sink, ...] = (),
    profile: bool = False,
) -> SimulatedRun:
    """Run, or go on with, a simulation.

    Args:
      simulation: What to run.
      folder: The run folder, made already; a journal in it is gone on with. None keeps nothing on disk.
      name: The run's name, where there is no folder.
      sinks: Receive every event.
      profile: Write into each round's record where its time went (`hanse.rounds.spans`).

    Raises:
      RunInterrupted: Stopped by Ctrl-C or SIGTERM; resumable where there is a folder.
      HanseError: One of the kinds in `hanse.core.errors`.
    """
    spans: Spans = SpanTimer() if profile else NO_SPANS
    if folder is None:
        with limited_threads(simulation.engine.trainer.threads), set_aside():
            return _Attempt(simulation, MemoryJournal(), None, name, fan_out(sinks), spans).run()
    with locked(folder), limited_threads(simulation.engine.trainer.threads), set_aside():
        journal = FileJournal(folder)
        try:
            with EventLog(folder / EVENTS) as log:
                return _Attempt(simulation, journal, folder, folder.name, fan_out((log, *sinks)), spans).run()
        finally:
            journal.close()


class _Attempt:
    """One process's attempt at a run, from its start or from where the journal stands."""

    def __init__(
        self, simulation: Simulation, journal: Journal, folder: Path | None, name: str, emit: Sink, spans: Spans
    ) -> None:
        self._simulation = simulation
        self._journal = journal
        self._folder = folder
        self._name = name
        self._done = 0  # the newest committed round
        self._emit = fan_out((self._note_round, emit))
        self._spans = spans
        self._began = time.perf_counter()
        self._facts: dict[str, Any] = {}
        self._privacy: RunPrivacy | None = None
        self._told: set[str] = set()

    def run(self) -> SimulatedRun:
        check_simulation(self._simulation)
        with self._private() as self._privacy:
            return self._run()

    @contextmanager
    def _private(self) -> Iterator[RunPrivacy | None]:
        """The run's account, where it promises anything; from here on the simulation is as privacy demands."""
        settled, self._simulation = self._simulation.settled_privacy, self._simulation.settled()
        if settled is None:
            yield None
            return
        with TemporaryDirectory(prefix="hanse-") as scratch:  # of a run that keeps nothing
            ledger = (Path(scratch) if self._folder is None else self._folder) / LEDGER
            yield RunPrivacy(settled, ledger, run=charged_as(ledger, self._name), simulated=True)

    def _run(self) -> SimulatedRun:
        self._announce()
        self._settle_trainer()
        status: RunStatus = "failed"
        try:
            outcome = self._run_rounds()
            status = outcome.status
            return self._finished(outcome)
        except (RunInterrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        except StorageError:
            status = "interrupted"  # nothing is lost: it can be resumed once the storage is there again
            raise
        finally:
            self._close_facts(status)

    def _settle_trainer(self) -> None:
        self._simulation = with_fitting_width(with_chosen_trainer(self._simulation, self._note), self._note)
        warm_up(self._simulation, self._note)

    def _note(self, message: str) -> None:
        self._told.add(message)
        self._emit(Noted(message=message))

    def _run_rounds(self) -> RunOutcome:
        simulation = self._simulation
        kept_folder = None if self._folder is None else self._folder / CLIENTS

        def make(kept: Any) -> RuntimeFactory:
            return RuntimeFactory(
                dataset=attacked_dataset(simulation),
                task=simulation.task,
                pipeline=simulation.pipeline,
                seed=simulation.settings.seed,
                kept=kept,
                trainer=simulation.engine.trainer,
            )

        told = frozenset(self._told)

        def note(message: str) -> None:
            if message not in told:  # while warming up: every worker's trainer finds it out again
                self._emit(Noted(message=message))

        with (
            open_transport(make, simulation.engine, kept_folder=kept_folder, note=note, spans=self._spans) as transport,
            stop_on_signal() as stop_requested,
        ):
            parts = RunParts(
                strategy=simulation.strategy,
                task=simulation.task,
                pipeline=simulation.pipeline,
                transport=on_the_clock(
                    simulation, self._straggling(under_attack(simulation, transport)), folder=self._folder
                ),
                journal=self._journal,
                population=simulation.population(),
                federation=simulation.federation,
                central=self._central(transport),
                robust=robust_evaluation(simulation),
                held_out=simulation.dataset.held_out,
                spans=self._spans,
                privacy=self._privacy,
                numbers=self._adds_numbers,
                root=self._root(),
                attack=simulated_attack(simulation),
            )
            return run_rounds(parts, with_cohorts(simulation), emit=self._emit, stop_requested=stop_requested)

    def _root(self) -> ServerExamples | None:
        """The server's own examples, where there are any and the aggregator may look at them."""
        simulation = self._simulation
        examples = simulation.dataset.root
        if examples is None or not isinstance(simulation.pipeline.aggregator, Judges):
            return None
        trainer, _ = make_trainer(simulation.task, simulation.engine.trainer, whole_cohorts=True)
        return ServerExamples(examples, simulation.task, trainer, seed=simulation.settings.seed)

    def _straggling(self, transport: Transport) -> Transport:
        stragglers = self._simulation.stragglers
        if not stragglers.fraction:
            return transport
        return StragglingTransport(transport, stragglers, seed=self._simulation.settings.seed)

    def _adds_numbers(self, exchange: Exchange) -> SimulatedNumbers:
        """Adds up what clients measure where the pipeline hides it, with keys from the job's seed."""
        aggregator: Any = self._simulation.pipeline.aggregator  # asked only where it can
        return SimulatedNumbers(exchange, aggregator=aggregator, seed=self._simulation.settings.seed)

    def _central(self, transport: Transport) -> CentralEvaluation | None:
        """Measures on the official test set: by a pool's workers, piece by piece, or with a trainer of this process."""
        test, task = self._simulation.dataset.central_test, self._simulation.task
        if test is None or (task.preprocess is not None and task.preprocess.scope == "client"):
            return None
        trainer, chosen = make_trainer(task, self._simulation.engine.trainer, whole_cohorts=True)
        self._emit(Noted(message=chosen))

        def alone(params: Params, statistics: Statistics) -> Sums:
            return trainer.evaluate(params, ("", "central"), lambda: prepared(task, test, statistics))

        if isinstance(transport, PoolTransport) and isinstance(trainer, EvaluatesInBlocks) and trainer.in_blocks:
            return by_workers(transport, test, alone)
        return alone

    def _announce(self) -> None:
        simulation = self._simulation
        spec = simulation.task.init_params(simulation.settings.seed).spec
        last = self._journal.history(simulation.task.objective).last
        self._done = 0 if last is None else last.round
        self._facts = opening_facts(
            simulation.task,
            spec,
            simulation.settings,
            num_clients=len(simulation.dataset),
            job=simulation.job,
            before=self._journal.facts() if isinstance(self._journal, FileJournal) else {},
            last=last,
        )
        if isinstance(self._journal, FileJournal):
            self._journal.write_facts(self._facts)
        self._emit(
            RunStarted(
                name=self._name,
                rounds=simulation.settings.rounds,
                first_round=1 if last is None else last.round + 1,
                num_clients=len(simulation.dataset),
                num_parameters=spec.size,
                resumed=last is not None,
            )
        )

    def _finished(self, outcome: RunOutcome) -> SimulatedRun:
        best_round = outcome.history.best_round()
        state = outcome.state
        strategy = self._simulation.strategy
        last = best = final_models(strategy, state)
        if best_round is not None:
            best = final_models(strategy, self._journal.state(state, best_round))
        self._facts["model_sha256"] = last.sha256
        if self._folder is not None:
            last.save(self._folder / MODELS, "last")
            best.save(self._folder / MODELS, "best")
            rmtree(self._folder / UNDER_WAY, ignore_errors=True)  # no round will take it in
        facts = self._facts
        record = RunRecord(
            name=self._name,
            status=outcome.status,
            path="" if self._folder is None else str(self._folder),
            rounds_planned=facts["rounds"],
            history=outcome.history,
            model_sha256=facts["model_sha256"],
            num_parameters=facts["num_parameters"],
            num_clients=facts["num_clients"],
            job=facts["job"],
            versions=facts["versions"],
            started=facts["started"],
            seconds=facts["seconds"] + time.perf_counter() - self._began,
        )
        return SimulatedRun(
            record=record,
            params=last.params,
            best=best.params,
            statistics=self._journal.statistics() or {},
            groups=last.groups,
        )

    def _note_round(self, event: Event) -> None:
        if isinstance(event, RoundFinished):
            self._done = event.round

    def _close_facts(self, status: RunStatus) -> None:
        """Say how the run ended; on a full disk nothing can be said, and the status shows as interrupted."""
        seconds = time.perf_counter() - self._began
        self._facts["status"] = status
        self._facts["seconds"] += seconds
        ended = RunEnded(
            name=self._name,
            status=status,
            rounds=self._done,
            model_sha256=self._facts.get("model_sha256", ""),
            seconds=self._facts["seconds"],
        )
        with _tolerant():
            if isinstance(self._journal, FileJournal):
                self._journal.write_facts(self._facts)
        with _tolerant():
            self._emit(ended)


@contextmanager
def _tolerant() -> Iterator[None]:
    """Let a storage error pass: another one is on its way already."""
    try:
        yield
    except StorageError:
        return
