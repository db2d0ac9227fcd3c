"""`fill_table`: runs the cells that are not there yet, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hanse.core.errors import RunInterrupted
from hanse.core.garbage_collection import set_aside
from hanse.core.units import plural
from hanse.robustness.cells import Found, reason_not_to_run, run_cell
from hanse.robustness.plan import Place, Plan
from hanse.robustness.results import Results, busy_error, safe_cells
from hanse.rounds.run_folder import locked
from hanse.rounds.tensor_files import storage_error


class Watcher(Protocol):
    """Is told how the table fills."""

    def begun(self, done: int, total: int) -> None:
        """So many cells are there already."""
        ...

    def ended(self, place: Place, found: Found, seconds_left: float) -> None:
        """A cell has ended."""
        ...


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the cells are run on.

    Args:
      workers: Processes that each run's clients run in, ≥ 1.
      data_dir: Folder of data sets; None for the environment's.
      run: Runs a cell.
      clock: Seconds that only go forward.
    """

    workers: int = 1
    data_dir: Path | None = None
    run: Callable[..., Found] = run_cell
    clock: Callable[[], float] = time.monotonic


def fill_table(plan: Plan, folder: Path, machine: Machine, watcher: Watcher) -> Mapping[Place, Found]:
    """Run every cell that is not in the folder yet; each is durable once it has ended.

    Args:
      plan: The table.
      folder: Where it lives.
      machine: What it is run on.
      watcher: Is told how it goes.

    Returns:
      All cells.

    Raises:
      RunInterrupted: Stopped; the same command goes on.
      RunLockedError: Another process fills this table.
      SettingError: The folder holds a table of other settings.
      HanseError: A cell can't be built, or the folder can't be written.
    """
    with safe_cells():
        return _filled(plan, folder, machine, watcher)


def _filled(plan: Plan, folder: Path, machine: Machine, watcher: Watcher) -> Mapping[Place, Found]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    with locked(folder, busy=busy_error(folder)):
        results = Results(folder, plan)
        left = [place for place in plan.cells() if place not in results.found]
        watcher.begun(len(results.found), len(results.found) + len(left))
        try:
            _run(plan, left, results, machine, watcher)
        except (RunInterrupted, KeyboardInterrupt):
            done = f"{len(results.found):,} of {plural(len(list(plan.cells())), 'cell')}"
            raise RunInterrupted(f"stopped; {done} are in {folder}", hint="go on with the same command") from None
        return dict(results.found)


def _run(plan: Plan, left: list[Place], results: Results, machine: Machine, watcher: Watcher) -> None:
    refused = {place for place in left if reason_not_to_run(plan, place)}
    running, ran, began = len(left) - len(refused), 0, machine.clock()
    with ExitStack() as stack:
        for place in left:
            found = machine.run(plan, place, workers=machine.workers, data_dir=machine.data_dir)
            results.add(place, found)
            ran += place not in refused
            spent = machine.clock() - began
            watcher.ended(place, found, (running - ran) * spent / ran if ran else 0.0)
            if ran == 1 and place not in refused:  # each run would do so anew, which takes as long as its training
                stack.enter_context(set_aside())
