"""From a built job to a finished run folder: run, compare, report, say so; and all of that again after a stop."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hanse.cli.finish import HOLDINGS, holdings_as_values, write_run_report
from hanse.cli.progress import ProgressSink
from hanse.cli.run import overrides
from hanse.cli.tables import run_summary
from hanse.core.errors import (
    HanseError,
    MissingExtraError,
    RunInterrupted,
    RunNotFoundError,
    SettingError,
    StorageError,
    StorageFullError,
)
from hanse.core.events import ClientFailed, Event, Noted, Sink
from hanse.jobs.assemble import BuiltJob, build_job
from hanse.jobs.job import CODE, load_job
from hanse.jobs.own_modules import importable
from hanse.report.toml import to_toml
from hanse.rounds.journal import FileJournal
from hanse.rounds.privacy.spending import account_of
from hanse.rounds.run_folder import JOB, find_run, locked, new_run_folder, read_run
from hanse.rounds.tensor_files import storage_error, write_atomically
from hanse.simulation.simulate import run_simulation
from hanse.simulation.worth_joining import worth_joining


def start_folder(built: BuiltJob, out: Path) -> Path:
    """Make the run folder, and write down in it what the run is made of.

    Raises:
      StorageError: It can't be written.
    """
    folder = new_run_folder(out, str(built.simulation.job["name"]))
    try:
        for file in built.own_files:
            assert built.folder is not None
            target = folder / CODE / file.relative_to(built.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    except OSError as error:
        raise storage_error(error, folder) from error
    write_atomically(folder / JOB, to_toml(built.simulation.job).encode())
    return folder


def reopen(
    run: str,
    out: Path,
    *,
    rounds: int | None,
    workers: int | None,
    elsewhere: Sequence[str] = (),
    data_dir: Path | None,
) -> tuple[BuiltJob | None, Path]:
    """The job of a run that is not finished, built again from its folder; None where it is finished.

    Args:
      run: Its name, or its folder.
      out: Folder that runs live in.
      rounds: Go on up to this round.
      workers: In place of the job's.
      elsewhere: Overrides that say where clients run.
      data_dir: Folder of data sets.

    Raises:
      HanseError: There is no such run, or its job can't be built any more.
    """
    folder = find_run(run, out)
    record = read_run(folder)
    done = record.history.last.round if record.history.last else 0
    if rounds is not None and rounds < done:
        raise SettingError("--rounds", f"got {rounds}; {done} rounds are done already", hint=f"give {done} or more")
    if not (folder / JOB).is_file():
        raise RunNotFoundError(
            f"the run `{folder.name}` was started from Python and has no job file",
            hint="go on with it there: run_simulation(simulation, folder=…) with the same simulation",
        )
    job = load_job(folder / JOB, [*overrides(None, rounds, None, workers), *elsewhere], data_dir=data_dir)
    ended = record.status in ("finished", "stopped early")
    compared = record.comparison is not None or not job.values.baselines
    if ended and compared and job.values.rounds <= record.rounds_planned:
        return None, folder
    built = build_job(job)
    if done and job.values.rounds != record.rounds_planned:
        _check_may_change_length(built, record.rounds_planned)
    write_atomically(folder / JOB, to_toml(built.simulation.job).encode())
    return built, folder


def _check_may_change_length(built: BuiltJob, planned: int) -> None:
    """Before anything is written: noise that spans rounds was made, and charged, for so many rounds."""
    settled = built.simulation.settled_privacy
    if settled is not None and settled.factorisation is not None:
        raise SettingError(
            "--rounds",
            f"the run's noise spans its {planned} rounds and was charged for all at once, so it can't be prolonged",
            hint="start another run, whose privacy is counted by itself",
        )


def execute(
    built: BuiltJob, folder: Path, *, quiet: bool, out: Path, report: bool = True, profile: bool = False
) -> None:
    """Run a job in its folder, or go on with it, and tell what came of it.

    Raises:
      RunInterrupted: Stopped by the user; the message says how to go on.
      HanseError: The run failed.
    """
    console = Console()
    objective = built.simulation.task.objective[0]
    try:
        with importable(built.folder), ProgressSink(quiet=quiet, objective=objective) as progress:
            run = run_simulation(built.simulation, folder=folder, sinks=(progress,), profile=profile)
            with locked(folder):
                _write_fact(folder, HOLDINGS, holdings_as_values(built.simulation.dataset))
                if built.baselines:
                    emit = progress if sys.stderr.isatty() else _without_rounds(progress)
                    found = worth_joining(built.simulation, run, baselines=built.baselines, emit=emit)
                    _write_fact(folder, "comparison", dataclasses.asdict(found))
    except (RunInterrupted, KeyboardInterrupt) as error:
        raise _interrupted(folder, out) from error
    except StorageFullError as error:
        raise _with_hint(error, f"free some space, then go on with: {resume_command(folder, out)}") from error
    _tell(folder, console, quiet=quiet, report=report)


def _without_rounds(sink: Sink) -> Sink:
    """Notes and failures alone: where nobody watches, a baseline's rounds are not worth a line each."""

    def emit(event: Event) -> None:
        if isinstance(event, Noted | ClientFailed):
            sink(event)

    return emit


def resume_command(folder: Path, out: Path) -> str:
    """What to type to go on with a run."""
    run = folder.name if out == Path("runs") and folder == out / folder.name else str(folder)
    return f"hanse resume {shlex.quote(run)}"


def _tell(folder: Path, console: Console, *, quiet: bool, report: bool) -> None:
    told = _report_line(folder) if report else f"no report; write it with: hanse report {shlex.quote(str(folder))}"
    if quiet:
        console.print(str(folder), markup=False, highlight=False, soft_wrap=True)
        return
    record = read_run(folder)
    console.print(run_summary(record, privacy=account_of(record)))
    console.print()
    for line in (f"run folder  {folder}", told):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _report_line(folder: Path) -> str:
    try:
        return f"report      {write_run_report(folder)}"
    except MissingExtraError as error:
        return f"no report: {error.message}; {error.hint}"


def _write_fact(folder: Path, key: str, value: object) -> None:
    journal = FileJournal(folder)
    try:
        journal.write_facts({key: value})
    finally:
        journal.close()


def _interrupted(folder: Path, out: Path) -> RunInterrupted:
    command = resume_command(folder, out)
    try:
        record = read_run(folder)
    except StorageError:
        return RunInterrupted("stopped before the first round was committed", hint="nothing is lost; run it again")
    last = record.history.last
    if record.status in ("finished", "stopped early"):
        message = f"stopped; `{folder.name}` has finished its rounds, but the baselines have not"
    elif last is None:
        message = f"stopped before the first round of `{folder.name}` was committed"
    else:
        message = f"stopped; `{folder.name}` is safe up to round {last.round} of {record.rounds_planned}"
    return RunInterrupted(message, hint=f"go on with: {command}")


def _with_hint(error: HanseError, hint: str) -> HanseError:
    return type(error)(error.message, hint=hint)
