"""Filling a table: stopped and gone on with, refused, and durable."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hanse.core.errors import RunInterrupted, RunLockedError, SettingError, StorageError, StorageFullError
from hanse.robustness.page import write_page
from hanse.robustness.plan import Plan
from hanse.robustness.results import RESULTS, SETTINGS
from hanse.robustness.table import Machine, fill_table
from hanse.rounds.run_folder import locked
from tests.robustness.conftest import Pretended, Silent, pretended

CELLS = 48


def filled(plan: Plan, folder: Path, run: Pretended) -> bytes:
    fill_table(plan, folder, Machine(run=run), Silent())
    return (folder / RESULTS).read_bytes()


def test_every_cell_gets_a_line_in_order(plan: Plan, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(filled(plan, tmp_path, Pretended()).decode())))
    assert len(rows) == CELLS
    assert [(row["partition"], float(row["share"]), row["attack"], row["rule"]) for row in rows] == [
        (place.partition, place.share, place.attack, place.rule) for place in plan.cells()
    ]
    assert rows[4] | {"reason": ""} == {
        "partition": "iid",
        "share": "0.2",
        "attack": "sign_flip",
        "rule": "mean",
        "status": "ran",
        "accuracy": repr(0.95 - 0.85),
        "success": "",
        "reason": "",
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, lambda: RunInterrupted("stopped"), lambda: SystemExit(9)])
def test_stopped_and_gone_on_with_it_has_the_same_bytes(
    plan: Plan, tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    whole = filled(plan, tmp_path / "whole", Pretended())
    first, second, watcher = Pretended(stop_at=17, error=error), Pretended(), Silent()
    with pytest.raises((RunInterrupted, SystemExit)) as stopped:
        fill_table(plan, tmp_path / "two", Machine(run=first), Silent())
    if isinstance(stopped.value, RunInterrupted):
        assert "17 of 48 cells" in str(stopped.value)
        assert "the same command" in str(stopped.value)
    found = fill_table(plan, tmp_path / "two", Machine(run=second), watcher)
    assert (tmp_path / "two" / RESULTS).read_bytes() == whole
    assert [*first.ran, *second.ran] == list(plan.cells())
    assert watcher.done == [17]
    assert dict(found) == {place: pretended(plan, place) for place in plan.cells()}


def test_a_line_that_was_cut_by_a_kill_is_run_again(plan: Plan, tmp_path: Path) -> None:
    whole = filled(plan, tmp_path, Pretended())
    lines = whole.splitlines(keepends=True)
    (tmp_path / RESULTS).write_bytes(b"".join(lines[:11]) + lines[11][:-5])
    again = Pretended()
    assert filled(plan, tmp_path, again) == whole
    assert len(again.ran) == CELLS - 10


def test_a_full_disk_says_that_the_same_command_goes_on(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Fills(Pretended):
        def __call__(self, plan: Plan, place: object, **more: object) -> object:  # type: ignore[override]
            if len(self.ran) == 3:
                monkeypatch.setattr("os.fsync", full)
            return super().__call__(plan, place, **more)  # type: ignore[arg-type]

    with pytest.raises(StorageFullError, match=r"(?s)results.csv.*each cell that has ended is safe; .* same command"):
        filled(plan, tmp_path, Fills())
    with pytest.raises(StorageFullError, match="each cell that has ended is safe"):
        write_page(plan, {place: pretended(plan, place) for place in plan.cells()}, tmp_path / "page.html")


def test_a_full_table_runs_nothing(plan: Plan, tmp_path: Path) -> None:
    whole, again = filled(plan, tmp_path, Pretended()), Pretended()
    assert filled(plan, tmp_path, again) == whole
    assert again.ran == []


def test_cells_are_on_the_disk_before_the_next_one_runs(plan: Plan, tmp_path: Path) -> None:
    seen = []

    class Looking(Pretended):
        def __call__(self, plan: Plan, place: object, **more: object) -> object:  # type: ignore[override]
            seen.append((tmp_path / RESULTS).read_bytes().count(b"\n") - 1)
            return super().__call__(plan, place, **more)  # type: ignore[arg-type]

    filled(plan, tmp_path, Looking())
    assert seen == list(range(CELLS))


def test_the_time_left_counts_cells_that_run(plan: Plan, tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    watcher = Silent()
    fill_table(plan, tmp_path, Machine(run=Pretended(), clock=lambda: float(next(ticks))), watcher)
    running = CELLS - 6  # Bulyan does not tolerate 40 %
    assert watcher.left[0] == running - 1
    assert watcher.left[-1] == 0.0


def test_other_settings_are_refused_by_name(plan: Plan, tmp_path: Path) -> None:
    before = filled(plan, tmp_path, Pretended())
    with pytest.raises(SettingError, match=r"--out: .* other settings: rounds, seed changed"):
        filled(replace(plan, rounds=3, seed=5), tmp_path, Pretended())
    with pytest.raises(SettingError, match="rules changed"):
        filled(replace(plan, rules=plan.rules[:2]), tmp_path, Pretended())
    assert (tmp_path / RESULTS).read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"something,else\n",
        lambda content: content.replace(b"sign_flip,krum", b"sign_flip,crumb"),
        lambda content: content + content.splitlines(keepends=True)[1],
        lambda content: content.replace(b",ran,", b",run,", 1),
        lambda content: b"",
    ],
    ids=["other head", "unknown cell", "cell twice", "unknown status", "empty"],
)
def test_damage_is_said(plan: Plan, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    content = filled(plan, tmp_path, Pretended())
    (tmp_path / RESULTS).write_bytes(damage(content))
    with pytest.raises(StorageError, match="is damaged"):
        filled(plan, tmp_path, Pretended())


def test_settings_that_are_damaged_are_said(plan: Plan, tmp_path: Path) -> None:
    filled(plan, tmp_path, Pretended())
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(StorageError, match="can't be read"):
        filled(plan, tmp_path, Pretended())
    (tmp_path / SETTINGS).write_text("[]")
    with pytest.raises(StorageError, match="holds no settings"):
        filled(plan, tmp_path, Pretended())


def test_somebody_elses_results_stay(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("mine\n")
    with pytest.raises(SettingError, match="no robustness table"):
        filled(plan, tmp_path, Pretended())
    assert (tmp_path / RESULTS).read_text() == "mine\n"


def test_one_process_at_a_time(plan: Plan, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunLockedError, match="is working on the table"):
        filled(plan, tmp_path, Pretended())


@pytest.mark.skipif(os.name != "posix", reason="permissions as on POSIX")
def test_a_place_that_is_no_folder_is_said(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        filled(plan, tmp_path / "file", Pretended())
