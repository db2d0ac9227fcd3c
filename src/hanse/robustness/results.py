"""The figures of a robustness table on disk: a line is added for each cell, and stays whatever happens afterwards.

robustness/
  results.csv        a line for each cell, in the table's order
  settings.json      what the figures depend on
  robustness.html    the page
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import hanse
from hanse.core.errors import RunLockedError, SettingError, StorageError, StorageFullError
from hanse.robustness.cells import Found, Status
from hanse.robustness.plan import Place, Plan, settings_differ
from hanse.rounds.tensor_files import storage_error, sync_folder, write_atomically

RESULTS = "results.csv"
SETTINGS = "settings.json"
PAGE = "robustness.html"

_HEAD = ("partition", "share", "attack", "rule", "status", "accuracy", "success", "reason")


def busy_error(folder: Path) -> RunLockedError:
    """Another process fills this table."""
    return RunLockedError(
        f"another process is working on the table in `{folder}`", hint="wait for it, or stop it first"
    )


@contextmanager
def safe_cells() -> Iterator[None]:
    """Raises `StorageFullError` with words on the table's cells where the disk is full, and not on a run's rounds."""
    try:
        yield
    except StorageFullError as error:
        hint = "each cell that has ended is safe; free some space, then go on with the same command"
        raise StorageFullError(error.message, hint=hint) from error


class Results:
    """The cells that are done; `add` makes one more durable.

    Args:
      folder: Where they live; made where it is missing.
      plan: The table.

    Raises:
      SettingError: The folder holds figures of other settings.
      StorageError: It can't be read or written, or what it holds is something else.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._path = folder / RESULTS
        self._settle(folder, plan)
        try:
            if not self._path.exists():
                write_atomically(self._path, _line(_HEAD))
            self.found = self._read(plan)
        except OSError as error:
            raise storage_error(error, self._path) from error

    def add(self, place: Place, found: Found) -> None:
        """Write a cell down; raises `StorageError`."""
        line = _line(
            (
                place.partition,
                repr(place.share),
                place.attack,
                place.rule,
                found.status,
                "" if found.accuracy is None else repr(found.accuracy),
                "" if found.success is None else repr(found.success),
                found.reason,
            )
        )
        try:
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, self._path) from error
        self.found[place] = found

    def _settle(self, folder: Path, plan: Plan) -> None:
        now = json.loads(json.dumps({"hanse": hanse.__version__, **plan.settings()}))
        path = folder / SETTINGS
        if path.exists():
            before = _settings(path)
            different = settings_differ(before, now)
            if different:
                raise SettingError(
                    "--out",
                    f"`{folder}` holds a table of other settings: {', '.join(different)} changed",
                    hint="go on with the settings that it was begun with, name another folder, or remove this one",
                )
            return
        if self._path.exists():
            raise SettingError("--out", f"`{folder}` holds a {RESULTS} that is no robustness table's")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(now, indent=2, ensure_ascii=False) + "\n").encode())
            sync_folder(folder)
        except OSError as error:
            raise storage_error(error, folder) from error

    def _read(self, plan: Plan) -> dict[Place, Found]:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # killed while a line was being written
            os.truncate(self._path, whole)
        rows = list(csv.reader(io.StringIO(content[:whole].decode("utf-8", errors="replace"), newline="")))
        known = set(plan.cells())
        found: dict[Place, Found] = {}
        try:
            if tuple(rows[0]) != _HEAD:
                raise ValueError("the head is another one")
            for row in rows[1:]:
                place, cell = _parsed(row)
                if place not in known or place in found:
                    raise ValueError("a line is no cell of this table, or is there twice")
                found[place] = cell
        except (ValueError, IndexError) as error:
            raise StorageError(
                f"`{self._path}` is damaged: {error}", hint="remove the folder, and the table is filled anew"
            ) from error
        return found


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StorageError(f"`{path}` can't be read: {error}", hint="remove the folder, or name another") from error
    if not isinstance(found, dict):
        raise StorageError(f"`{path}` holds no settings", hint="remove the folder, or name another")
    return found


def _parsed(row: list[str]) -> tuple[Place, Found]:
    partition, share, attack, rule, status, accuracy, success, reason = row
    if status not in get_args(Status):
        raise ValueError(f"`{status}` is no status")
    kept: dict[str, Status] = {name: name for name in get_args(Status)}
    place = Place(partition=partition, share=float(share), attack=attack, rule=rule)
    return place, Found(
        status=kept[status],
        accuracy=float(accuracy) if accuracy else None,
        success=float(success) if success else None,
        reason=reason,
    )


def _line(values: tuple[str, ...]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(values)
    return file.getvalue().encode()
