"""`LiveRun`: one run of the federation in a thread of the coordinator, from its job to its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hanse.core.errors import JobError, JobProblems, PipelineError, RunInterrupted, StorageError
from hanse.core.events import Event, Noted, RoundFinished, RunEnded, RunStarted
from hanse.core.garbage_collection import set_aside_for_good
from hanse.core.protocols import CombinesSums, Strategy, Task
from hanse.federation.negotiation import schema_from_card
from hanse.federation.peer_lists import digest_of_peers
from hanse.federation.protocol import BlobRef, RunStatus
from hanse.federation.server.dispatcher import Dispatcher
from hanse.federation.server.peer_book import verifier
from hanse.federation.server.ports import Member, Run, RunBook, SiteBook, WorkBook
from hanse.federation.server.preparation import SETTLED, Preparation, Settled
from hanse.federation.server.run_events import RunEvents
from hanse.federation.server.transport import Blobs, FederationTransport
from hanse.federation.server.untold import UNTOLD_COHORTS, as_told
from hanse.jobs.build import Admit
from hanse.jobs.job import job_from_values
from hanse.jobs.parts import JobParts, build_parts
from hanse.rounds.checks import problems_of_parts
from hanse.rounds.facts import opening_facts
from hanse.rounds.final_models import final_models
from hanse.rounds.held_numbers import HeldNumbers
from hanse.rounds.hidden_updates import HiddenSums
from hanse.rounds.journal import Journal
from hanse.rounds.loop import run_rounds
from hanse.rounds.number_sums import check_number_sums
from hanse.rounds.pace import asked_at_once, drawn_in_reserve, updates_awaited
from hanse.rounds.privacy.run import RunPrivacy
from hanse.rounds.privacy.secret_cohorts import cohorts_are_secret
from hanse.rounds.privacy.settle import check_timely, settle_privacy
from hanse.rounds.run_parts import RunOutcome, RunParts
from hanse.rounds.secure_sum import check_over_selection, check_secure_sum, discreet, fewest_updates
from hanse.rounds.secure_sum import cohort_size as most_asked
from hanse.rounds.selection import Poisson, cohort_size
from hanse.rounds.settings import RoundSettings
from hanse.rounds.sum_diary import DiaryFile, diary_path
from hanse.rounds.sum_names import name_for_sums
from hanse.rounds.tensor_files import pack_model


class RunJournal(Journal, Protocol):
    """A run's journal with its facts."""

    def facts(self) -> dict[str, Any]:
        """All facts about the run."""
        ...

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts, replacing what stood there."""
        ...

    def records(self) -> list[dict[str, Any]]:
        """All committed rounds as JSON values."""
        ...

    def statistics_blob(self) -> BlobRef | None:
        """Where the federated statistics are, once there are any."""
        ...


class KeptBlobs(Blobs, Protocol):
    """The blob store, also for whoever keeps house."""

    def let_go(self, in_use: Callable[[], Collection[str]]) -> int:
        """Delete what was named and is named no more."""
        ...

    def sweep(self, in_use: Collection[str]) -> int:
        """Delete what nobody names, however it came to be here."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bureau:
    """What runs need of the coordinator.

    Args:
      runs, sites, work: The books.
      blobs: The blob store.
      dispatcher: Hands items to sites.
      open_journal: A run's journal.
      admit: Says what a job may name here.
      ledger: The file in which private runs' releases are charged.
      clock: Seconds that only go forward.
      now: Seconds since 1970.
    """

    runs: RunBook
    sites: SiteBook
    work: WorkBook
    blobs: KeptBlobs
    dispatcher: Dispatcher
    open_journal: Callable[[str], RunJournal]
    admit: Admit
    ledger: Path
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time


@dataclass(eq=False)
class Standing:
    """Where a live run stands, for who asks."""

    round: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    newest_event: int = 0


class LiveRun:
    """One attempt at a run, from its start or from where its journal stands.

    Args:
      run: The run.
      bureau: The coordinator's part.
      stop_requested: Whether it is to stop, for now or for good.
      told: Called when there is a new event.
    """

    def __init__(
        self, run: Run, bureau: Bureau, *, stop_requested: Callable[[], bool], told: Callable[[], None]
    ) -> None:
        self._run = run
        self._bureau = bureau
        self._stop_requested = stop_requested
        self._told = told
        self._journal = bureau.open_journal(run.id)
        self._events = RunEvents(bureau.runs, run.id, told=self._heard, clock=bureau.clock, now=bureau.now)
        self._began = bureau.clock()
        self._facts: dict[str, Any] = {}
        self._privacy: RunPrivacy | None = None
        self.standing = Standing()

    def run(self) -> RunStatus:
        """Prepare where that is left to do, run the rounds, keep the models.

        Raises:
          RunInterrupted: It is to stop.
          StorageError: Something could not be read or written; an attempt after this one goes on.
          HanseError: It can't go on.
        """
        bureau, run = self._bureau, self._run
        job = job_from_values(run.job, source=f"the job of run `{run.id}`")
        parts = build_parts(job, admit=bureau.admit)
        set_aside_for_good()  # what the run's parts import
        settled = self._settled(parts, job.values.data)
        bureau.runs.move(run.id, "running", now=bureau.now())
        task = _bound(parts, settled)
        parts, self._privacy = self._private(parts, task, settled)
        settings = self._checked(parts, task, settled)
        self._announce(parts, task, settings, len(settled.clients))
        outcome = self._rounds(parts, task, settings, settled)
        self._keep_models(parts.strategy, outcome)
        return outcome.status

    def close(self, status: str) -> None:
        """Say how the run ended, as far as the storage takes it."""
        if self._privacy is not None:
            with suppress(StorageError):
                self._privacy.ended()
        self._facts["status"] = status
        self._facts["seconds"] = self._facts.get("seconds", 0.0) + self._bureau.clock() - self._began
        self._facts |= {"round": self.standing.round, "metrics": dict(self.standing.metrics)}
        ended = RunEnded(
            name=self._run.id,
            status=status,
            rounds=self.standing.round,
            model_sha256=self._facts.get("model_sha256", ""),
            seconds=self._facts["seconds"],
        )
        with suppress(StorageError):
            self._journal.write_facts(self._facts)
        with suppress(StorageError):
            self._emit(ended)

    def note(self, message: str) -> None:
        """Tell those who watch; raises `StorageError`."""
        self._emit(Noted(message=message))

    # --- private ------------------------------------------------------------------------------------------------

    def _settled(self, parts: JobParts, data: str | Mapping[str, Any]) -> Settled:
        known = self._journal.facts().get(SETTLED)
        if known is not None:
            return Settled.from_json(known)
        bureau, run = self._bureau, self._run
        bureau.runs.move(run.id, "preparing", now=bureau.now())

        def told(members: Sequence[Member]) -> None:
            bureau.runs.settle_members(run.id, members)
            self._told()

        preparation = Preparation(
            run,
            sites=bureau.sites,
            work=bureau.work,
            dispatcher=bureau.dispatcher,
            settings=parts.federation,
            data=data,
            told=told,
            note=self.note,
            check=self._check_stop,
            now=bureau.now,
            listed=self._journal if parts.pipeline.hides_replies else None,
        )
        settled = preparation.settle()
        self._journal.write_facts({SETTLED: settled.to_json()})
        return settled

    def _private(self, parts: JobParts, task: Task, settled: Settled) -> tuple[JobParts, RunPrivacy | None]:
        """The parts as privacy demands, and the run's account, where the job promises anything.

        Raises:
          HanseError: The promise can't be kept with these parts.
        """
        if parts.privacy is None:
            return parts, None
        check_timely(parts.privacy, parts.federation)
        # else every site has the job's seed, from which cohorts follow, and who watches is told: sampling hides nothing
        secret = cohorts_are_secret(parts.privacy, parts.settings)
        private = settle_privacy(
            parts.privacy,
            parts.pipeline,
            parts.settings,
            task,
            settled.population(),
            prescribed=parts.strategy.local_work,
            amplified=secret,
        )
        account = RunPrivacy(private, self._bureau.ledger, run=self._run.id, simulated=False, secret_cohorts=secret)
        if secret:
            self._journal.write_facts({UNTOLD_COHORTS: True})
        return replace(parts, pipeline=private.pipeline, settings=private.settings, privacy=None), account

    def _checked(self, parts: JobParts, task: Task, settled: Settled) -> RoundSettings:
        """The loop's settings, its cohort enlarged as the job says.

        Raises:
          HanseError: The parts do not fit each other, or this federation.
        """
        population = settled.population()
        found = list(problems_of_parts(parts.strategy, task, parts.pipeline, parts.settings, population))
        if isinstance(parts.pipeline.aggregator, CombinesSums) and parts.federation.stragglers == "buffer":
            told = "pipeline.aggregator: groups are of one round's clients, and late updates are of none of them"
            found.append(PipelineError(told, hint='use stragglers = "drop"'))
        if parts.attack is not None:
            told = "attack: hostile clients are simulated, and the sites of a federation are what they are"
            found.append(JobError(told, hint="leave [attack] out, or simulate the job: hanse run"))
        if not found:
            given = parts.pipeline, parts.settings, task, population
            check_secure_sum(*given)
            check_number_sums(*given, held_out=settled.held_out)
        if len(found) == 1:
            raise found[0]
        if found:
            raise JobProblems(found, source="the job")
        cohort = asked_at_once(parts.settings.cohort, parts.federation, most=len(population.clients))
        reserves = drawn_in_reserve(parts.settings.cohort, parts.federation)
        settings = replace(discreet(parts.pipeline, parts.settings), cohort=cohort, reserves=reserves)
        if settings.cohort != parts.settings.cohort:
            check_over_selection(parts.pipeline, settings, goal=cohort_size(parts.settings.cohort))
        return settings

    def _announce(self, parts: JobParts, task: Task, settings: RoundSettings, num_clients: int) -> None:
        history = self._journal.history(task.objective)
        last = history.last
        spec = task.init_params(settings.seed).spec
        before = self._journal.facts()
        facts = opening_facts(task, spec, settings, num_clients=num_clients, job=parts.table, before=before, last=last)
        self._facts = {key: value for key, value in facts.items() if value is not None}
        self._journal.write_facts(self._facts)
        if last is not None:
            measured = next(
                (r for r in reversed(history.rounds) if r.objective_value(task.objective[0]) is not None), last
            )
            self.standing.round = last.round
            self.standing.metrics = measured.validation or measured.central or measured.federated or {}
        self._emit(
            RunStarted(
                name=self._run.id,
                rounds=settings.rounds,
                first_round=1 if last is None else last.round + 1,
                num_clients=num_clients,
                num_parameters=spec.size,
                resumed=last is not None,
            )
        )

    def _rounds(self, parts: JobParts, task: Task, settings: RoundSettings, settled: Settled) -> RunOutcome:
        bureau, federation = self._bureau, parts.federation
        transport = FederationTransport(
            self._run.id,
            self._run.job_blob,
            clients=tuple(settled.clients),
            site_of=settled.site_of,
            work=bureau.work,
            blobs=bureau.blobs,
            dispatcher=bureau.dispatcher,
            settings=federation,
            min_clients=self._least(parts, settings, len(settled.clients)),
            goal=updates_awaited(parts.settings.cohort, federation),
            holds_back=parts.pipeline.hides_replies,
            note=self.note,
            stop_requested=self._stop_requested,
            now=bureau.now,
        )
        run_parts = RunParts(
            strategy=parts.strategy,
            task=task,
            pipeline=parts.pipeline,
            transport=transport,
            journal=self._journal,
            population=settled.population(),
            held_out=settled.held_out,
            federation=federation,
            simulated=False,
            privacy=self._privacy,
            sums=self._sums(settled) if parts.pipeline.hides_replies else None,
        )
        if run_parts.sums is not None:
            run_parts = replace(run_parts, numbers=partial(HeldNumbers, sums=run_parts.sums, pipeline=parts.pipeline))
        return run_rounds(run_parts, settings, emit=self._emit, stop_requested=self._stop_requested)

    def _least(self, parts: JobParts, settings: RoundSettings, num_clients: int) -> int:
        """Updates without which no round counts, so that sites are waited for."""
        if not parts.pipeline.hides_replies or isinstance(settings.cohort, Poisson):
            return settings.min_clients
        return fewest_updates(parts.pipeline, settings.min_clients, most_asked(settings, num_clients))

    def _sums(self, settled: Settled) -> HiddenSums:
        """How sums are made of what sites hold back; raises `StorageError`."""
        bureau, run = self._bureau, self._run
        return HiddenSums(
            run=name_for_sums(run.id, run.job_blob.sha256, digest_of_peers(settled.peers)),
            verify=verifier(settled.keys, settled.site_of).verify,
            diary=DiaryFile(diary_path(bureau.ledger, run.id)),
        )

    def _keep_models(self, strategy: Strategy[Any], outcome: RunOutcome) -> None:
        state, best_round = outcome.state, outcome.history.best_round()
        last = best = final_models(strategy, state)
        if best_round is not None:
            best = final_models(strategy, self._journal.state(state, best_round))
        put = self._bureau.blobs.put
        self._facts["model_sha256"] = last.sha256
        for name, models in (("last", last), ("best", best)):
            self._facts[name] = put(pack_model(models.params)).model_dump()
            groups = models.packed_groups()
            if groups is not None:
                self._facts[f"{name}_groups"] = put(groups).model_dump()

    def _emit(self, event: Event) -> None:
        if isinstance(event, RoundFinished):
            self.standing.round = event.round
            self.standing.metrics = event.central or event.federated or self.standing.metrics
        secret = self._privacy is not None and self._privacy.secret_cohorts
        shown = as_told(self._run.id, event) if secret else event
        if shown is not None:
            self._events(shown)

    def _heard(self, newest: int) -> None:
        self.standing.newest_event = newest
        self._told()

    def _check_stop(self) -> None:
        if self._stop_requested():
            raise RunInterrupted("stopped on request; committed rounds are safe")


def _bound(parts: JobParts, settled: Settled) -> Task:
    """The task, told what the data looks like."""
    card = settled.layout.data_schema
    task: Any = parts.task
    if card is None or not hasattr(task, "bind"):
        return task  # type: ignore[no-any-return]
    bound: Task = task.bind(schema_from_card(card))
    return bound
