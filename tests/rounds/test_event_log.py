from __future__ import annotations

import errno
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from hanse.core.errors import StorageError, StorageFullError
from hanse.core.events import Noted, RoundFinished, RoundStarted
from hanse.rounds.event_log import EventLog


def clock() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))


def refuse_constants(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=refuse_constants) for line in path.read_text("utf-8").splitlines()]


def test_each_event_is_one_line_with_its_time_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path, clock=clock) as log:
        log(RoundStarted(round=1, cohort=("a\nb", "ü")))
        assert len(read(path)) == 1  # on disk at once, not when closed
        log(Noted(message="x"))
    started, noted = read(path)
    assert started == {
        "time": "2026-01-02T02:04:05+00:00", "event": "RoundStarted", "round": 1, "cohort": ["a\nb", "ü"],
    }  # fmt: skip
    assert noted["event"] == "Noted"


def test_figures_that_json_lacks_become_text_that_float_reads(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    central = {"loss": math.nan, "up": math.inf, "down": -math.inf, "numpy": np.float32(0.5)}
    with EventLog(path) as log:
        log(RoundFinished(round=1, status="finished", num_updates=np.int64(2), num_failures=0, central=central))  # type: ignore[arg-type]
    (record,) = read(path)
    found = record["central"]
    assert found == {"loss": "NaN", "up": "Infinity", "down": "-Infinity", "numpy": 0.5}
    assert record["num_updates"] == 2
    assert math.isnan(float(found["loss"]))
    assert datetime.fromisoformat(str(record["time"])).tzinfo == UTC


def test_a_second_log_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log(Noted(message="one"))
    with path.open("ab") as file:
        file.write(b'{"event": "No')
    with EventLog(path) as log:
        log(Noted(message="two"))
        log(Noted(message="three"))
    lines = path.read_text().splitlines()
    assert [json.loads(lines[i])["message"] for i in (0, 2, 3)] == ["one", "two", "three"]
    assert lines[1] == '{"event": "No'


class FullDisk:
    """A file that takes `room` more bytes."""

    def __init__(self, file: object, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "no space")
        taken = data[: self.room]
        self.room -= len(taken)
        return self.file.write(taken)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self.file.close()  # type: ignore[attr-defined]


def test_a_full_disk_is_said_and_the_next_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        disk = FullDisk(log._file, room=10)
        log._file = disk  # type: ignore[assignment]
        with pytest.raises(StorageFullError, match="the disk is full"):
            log(Noted(message="lost"))
        disk.room = 10_000
        log(Noted(message="kept"))
    first, second = path.read_text().splitlines()
    assert len(first) == 10
    assert json.loads(second)["message"] == "kept"


def test_a_folder_that_is_not_there_is_an_honest_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be written"):
        EventLog(tmp_path / "nowhere" / "events.jsonl")
