"""`Runner`: the federation's runs, a thread each for as many as may live at once; the others wait their turn.

A run that is not ended when the coordinator starts goes on by itself from its last commit. A run that was stopped on
request has ended: its committed rounds stay and can be fetched, and the job can be submitted anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hanse.core.errors import HanseError, RunInterrupted, RunNotFoundError, StorageError, did_you_mean
from hanse.federation.protocol import BlobRef, ReleaseCard, RunCard, RunExport, RunSite, RunStatus, SubmitRequest
from hanse.federation.server.live_run import Bureau, LiveRun, RunJournal
from hanse.federation.server.peer_book import ASKED
from hanse.federation.server.ports import Run
from hanse.federation.server.preparation import SETTLED
from hanse.federation.server.untold import UNTOLD_COHORTS, record_as_told
from hanse.jobs.job import job_from_values
from hanse.jobs.parts import build_parts
from hanse.privacy.event_json import event_to_dict
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.checks import check_asynchronous, check_fresh, check_no_test_set, check_seconds
from hanse.rounds.event_log import strict_json
from hanse.rounds.pace import asked_at_once
from hanse.rounds.privacy.run import forget_keys, scope_of
from hanse.rounds.secure_sum import check_sizes
from hanse.rounds.sum_diary import DiaryFile, diary_path

LOGGER = logging.getLogger("hanse.federation")

ENDED = frozenset({"finished", "stopped early", "stopped", "failed"})
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_MODELS = ("last", "best", "last_groups", "best_groups")
_HOUSEKEEPING_SECONDS = 5.0
_SEEN = 2  # what is written down of sites, every so many times
_SWEEPS = 120  # of the whole store, likewise


@dataclass(eq=False)
class _Thread:
    """A run that waits for its turn or lives."""

    run: Run
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    live: LiveRun | None = None


class Runner:
    """Submits, runs, resumes, stops and shows runs.

    Args:
      bureau: What runs need of the coordinator.
      most_live: Runs that live at once, ≥ 1.
    """

    def __init__(self, bureau: Bureau, *, most_live: int = 8) -> None:
        self._bureau = bureau
        self._most_live = most_live
        self._lock = threading.RLock()
        self._known: dict[str, _Thread] = {}  # not ended, in the order in which they were submitted
        self._closing = threading.Event()
        self._waiters: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._housekeeper: threading.Thread | None = None
        bureau.dispatcher.on_logs(self._notify_all)

    def start(self) -> None:
        """Go on with every run that has not ended; raises `StorageError` where the runs can't be read."""
        for run in self._bureau.runs.runs():
            if run.status not in ENDED:
                self._take_up(run)
        self._housekeeper = threading.Thread(target=self._keep_house, name="hanse-housekeeper", daemon=True)
        self._housekeeper.start()

    def close(self) -> None:
        """Let go of the runs that live: they go on when a coordinator starts again."""
        self._closing.set()
        with self._lock:
            known = list(self._known.values())
        for each in known:
            self._bureau.dispatcher.inbox(each.run.id).poke()
        for thread in [each.thread for each in known] + [self._housekeeper]:
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        self._notify_all(list(self._waiters))

    def submit(self, request: SubmitRequest, *, submitter: str) -> str:
        """Check, queue and return the run's id; the same `key` again is the same run.

        Raises:
          JobError: The job can't run.
        """
        bureau = self._bureau
        job = job_from_values(request.job, source="the job")
        parts = build_parts(job, admit=bureau.admit)
        asked_at_once(parts.settings.cohort, parts.federation)
        check_sizes(parts.pipeline, parts.settings)
        check_fresh(parts.strategy, parts.federation)
        check_asynchronous(parts.pipeline, parts.federation, parts.settings.cohort, parts.settings.evaluate)
        check_seconds(parts.settings.cohort, "measured")
        check_no_test_set(parts.settings.evaluate)
        content = json.dumps(parts.table, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        table = json.loads(content)
        wanted = Run(
            id=request.name or name_of_run(str(table["name"])),
            status="queued",
            submitter=submitter,
            key=request.key,
            job=table,
            job_blob=bureau.blobs.put(content),
            created=bureau.now(),
        )
        run = bureau.runs.submit(wanted)
        if run.status not in ENDED:
            self._take_up(run)
        return run.id

    def stop(self, run: str) -> None:
        """Ask the run to stop; one that has ended stays as it is."""
        self._find(run)
        self._bureau.runs.request_stop(run)
        with self._lock:
            known = self._known.get(run)
            if known is None:
                return
            known.stop.set()
            if known.thread is None:
                self._end(known, "stopped", "stopped before it began")
            else:
                self._bureau.dispatcher.inbox(run).poke()

    def cards(self) -> list[RunCard]:
        """All runs, oldest first, without their sites' parts."""
        return [self._card(run) for run in self._bureau.runs.runs()]

    def card(self, run: str) -> RunCard:
        """One run.

        Raises:
          RunNotFoundError: There is none; the message names the nearest.
        """
        found = self._find(run)
        sites = [
            RunSite(
                site=member.site,
                clients=[card.id for card in member.clients],
                status=member.status,  # type: ignore[arg-type]
                reasons=list(member.reasons),
            )
            for member in self._bureau.runs.members(run)
        ]
        return self._card(found).model_copy(update={"sites": sites})

    def export(self, run: str) -> RunExport:
        """What a folder of the run is made from."""
        self._find(run)
        journal = self._bureau.open_journal(run)
        facts = journal.facts()
        told = record_as_told if facts.get(UNTOLD_COHORTS) else dict
        return RunExport(
            facts=strict_json({key: value for key, value in facts.items() if key not in (SETTLED, ASKED, *_MODELS)}),
            rounds=[strict_json(told(record)) for record in journal.records()],
            **{name: _ref(facts.get(name)) for name in _MODELS},
            statistics=journal.statistics_blob(),
            releases=self._releases(run),
        )

    def hides_cohorts(self, run: str) -> bool:
        """Whether who takes part in the run's rounds is a secret of the coordinator's."""
        return bool(self._bureau.open_journal(run).facts().get(UNTOLD_COHORTS))

    async def wait(self, run: str, *, after: int, seconds: float) -> None:
        """Return once the run has an event after number `after` or has ended, and after so many seconds at most."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        waiting = self._waiters.setdefault(run, set())
        waiting.add(entry)
        try:
            with self._lock:
                known = self._known.get(run)
            live = None if known is None else known.live
            if known is None or (live is not None and live.standing.newest_event > after):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await entry[1].wait()
        finally:
            waiting.discard(entry)
            if not waiting:
                self._waiters.pop(run, None)

    # --- threads ------------------------------------------------------------------------------------------------

    def _take_up(self, run: Run) -> None:
        with self._lock:
            if run.id in self._known or self._closing.is_set():
                return
            known = self._known[run.id] = _Thread(run)
            if run.job.get("privacy"):  # before it is known whether its cohorts are secret
                self._bureau.dispatcher.hide(run.id)
            if run.stop_requested:
                known.stop.set()
            self._tell_live()
            self._begin_next()

    def _begin_next(self) -> None:
        """Start threads for those whose turn has come; called with the lock."""
        living = sum(known.thread is not None for known in self._known.values())
        for known in self._known.values():
            if living >= self._most_live:
                return
            if known.thread is None:
                name = f"hanse-run-{known.run.id}"
                known.thread = threading.Thread(target=self._live, args=(known,), name=name, daemon=True)
                known.thread.start()
                living += 1

    def _live(self, known: _Thread) -> None:
        """A run's thread: attempts until one ends; what the storage refuses is tried again."""
        pause = _FIRST_PAUSE
        ended: tuple[RunStatus, str] | None = None
        while True:
            try:
                ended = ended or self._attempt(known)
                with self._lock:
                    self._end(known, *ended)
                return
            except RunInterrupted:
                return  # the coordinator closes; the run goes on at its next start
            except StorageError as error:
                LOGGER.warning("run %s waits for its storage: %s", known.run.id, error.message)
                if pause == _FIRST_PAUSE and known.live is not None:
                    with suppress(StorageError):
                        known.live.note(f"waiting for the storage: {error.message}")
                if self._closing.wait(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _attempt(self, known: _Thread) -> tuple[RunStatus, str]:
        run = known.run
        live = LiveRun(
            run,
            self._bureau,
            stop_requested=lambda: known.stop.is_set() or self._closing.is_set(),
            told=lambda: self._notify(run.id),
        )
        known.live = live
        try:
            status: RunStatus = live.run()
            reason = ""
        except RunInterrupted:
            if not known.stop.is_set():
                raise
            status, reason = "stopped", "stopped on request"
        except StorageError:
            raise
        except HanseError as error:
            status, reason = "failed", str(error)
        except Exception as error:
            LOGGER.exception("run %s failed", run.id)
            status, reason = "failed", f"{type(error).__name__}: {error}"
        live.close(status)
        return status, reason

    def _end(self, known: _Thread, status: RunStatus, reason: str) -> None:
        """Write down how a run ended and let the next one begin; called with the lock."""
        bureau, run = self._bureau, known.run.id
        bureau.dispatcher.end_run(run)
        bureau.work.end_run(run)
        forget_keys(bureau.ledger, run)
        DiaryFile(diary_path(bureau.ledger, run)).forget()
        bureau.runs.move(run, status, reason=reason, now=bureau.now())
        self._known.pop(run, None)
        self._tell_live()
        if not self._closing.is_set():
            self._begin_next()
        self._notify(run)

    def _tell_live(self) -> None:
        self._bureau.dispatcher.set_live(self._known)

    def _keep_house(self) -> None:
        """Write down when sites called, and let go of blobs that nobody names."""
        count = 0
        while not self._closing.wait(_HOUSEKEEPING_SECONDS):
            count += 1
            try:
                if count % _SEEN == 0:
                    self._bureau.sites.seen(self._bureau.dispatcher.seen())
                self._bureau.blobs.let_go(self._bureau.work.blobs_in_use)
                if count % _SWEEPS == 1:
                    self._bureau.blobs.sweep(self._bureau.work.blobs_in_use())
            except StorageError as error:
                LOGGER.warning("housekeeping: %s", error.message)

    def _releases(self, run: str) -> list[ReleaseCard]:
        if not self._bureau.ledger.is_file():
            return []
        entries = PrivacyLedger(self._bureau.ledger, scope=scope_of(run)).entries()
        return [
            ReleaseCard(round=entry.key.round, attempt=entry.key.attempt, event=event_to_dict(entry.event))
            for entry in entries
        ]

    # --- telling ------------------------------------------------------------------------------------------------

    def _notify_all(self, runs: Collection[str]) -> None:
        for run in runs:
            self._notify(run)

    def _notify(self, run: str) -> None:
        for loop, event in tuple(self._waiters.get(run, ())):
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def _find(self, run: str) -> Run:
        found = self._bureau.runs.run(run)
        if found is None:
            names = [other.id for other in self._bureau.runs.runs()]
            hint = did_you_mean(run, names) if names else "start one with: hanse submit job.toml"
            raise RunNotFoundError(f"no run `{run}` in this federation", hint=hint)
        return found

    def _card(self, run: Run) -> RunCard:
        with self._lock:
            known = self._known.get(run.id)
        live = None if known is None else known.live
        facts: Mapping[str, Any] = {} if live is not None else self._bureau.open_journal(run.id).facts()
        return RunCard(
            id=run.id,
            status=run.status,
            submitter=run.submitter,
            created=run.created,
            started=run.started,
            ended=run.ended,
            round=live.standing.round if live is not None else facts.get("round", 0),
            rounds=run.job.get("rounds", 0),
            reason=run.reason,
            model_sha256=facts.get("model_sha256", ""),
            metrics=dict(live.standing.metrics) if live is not None else facts.get("metrics", {}),
        )


def name_of_run(name: str) -> str:
    """A job's name as a run's id: what an id can't hold becomes a dash.

    >>> name_of_run("Über Herz_2!"), name_of_run("...")
    ('ber-herz_2', 'run')
    """
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:60].strip("-._") or "run"


def _ref(value: Any) -> BlobRef | None:
    return None if value is None else BlobRef.model_validate(value)


__all__ = ["Bureau", "LiveRun", "RunJournal", "Runner", "name_of_run"]
