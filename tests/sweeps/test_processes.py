"""Runs as real processes: started, killed, and gone on with."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hanse.core.events import RoundFinished
from hanse.rounds.event_log import EventLog
from hanse.rounds.run_folder import is_locked, read_run
from hanse.sweeps.launch import ForkingLaunch
from hanse.sweeps.places import Need, Places, threads_of
from hanse.sweeps.processes import EventTail, RunProcess

JOB = """\
name = "small"
rounds = 3

[data]
use = "wine"
partition = { use = "iid", clients = 3 }

[task]
use = "classification"
model = "pausing:Net"

[strategy]
use = "fedavg"
local = { optimizer = "sgd" }

[sweep]
grid = { "strategy.local.optimizer.lr" = [0.1, 0.2] }
"""

# A run has six local steps in a round. In its eighth it says that it waits, and does so while the file `wait` is there.
PAUSING = """\
import os, pathlib, sys, time
from torch import nn

HERE = pathlib.Path(os.environ["HERE"])

class Net(nn.Linear):
    steps = 0

    def __init__(self, num_inputs, num_classes):
        super().__init__(num_inputs, num_classes)

    def forward(self, x):
        if self.training:
            Net.steps += 1
            if Net.steps == 8:
                name = pathlib.Path(sys.argv[2]).name
                if name.startswith(os.environ.get("DIES", "nobody")):
                    os._exit(9)
                if (HERE / "wait").exists():
                    (HERE / f"{name}.new").write_text(str(os.getpid()))
                    (HERE / f"{name}.new").rename(HERE / f"{name}.waits")
                while (HERE / "wait").exists():
                    time.sleep(0.02)
        return super().forward(x)
"""


def finished(round_: int) -> RoundFinished:
    return RoundFinished(round=round_, status="finished", num_updates=1, num_failures=0, federated={"loss": 1.0})


def test_the_tail_counts_whole_lines(tmp_path: Path) -> None:
    tail = EventTail(tmp_path)
    tail.look()
    assert tail.round == 0
    with EventLog(tmp_path / "events.jsonl") as log:
        log(finished(1))
        log(finished(2))
        tail.look()
        assert (tail.round, dict(tail.metrics)) == (2, {"loss": 1.0})
        log(finished(3))
    file = tmp_path / "events.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    tail.look()
    assert tail.round == 2
    file.write_bytes(whole + b"no json\n[1]\n")
    tail.look()
    assert tail.round == 3


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    (tmp_path / "pausing.py").write_text(PAUSING, encoding="utf-8")
    (tmp_path / "wait").touch()
    return tmp_path


@pytest.fixture
def command(sweep: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `hanse sweep` as a process of its own, which writes into `out.txt`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> subprocess.Popen[bytes]:
        with (sweep / "out.txt").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "hanse", "sweep", "job.toml", "--jobs", "2", "--json"],
                cwd=sweep,
                env={**os.environ, "HERE": str(sweep), **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    (sweep / "wait").unlink(missing_ok=True)


def said(folder: Path) -> str:
    return (folder / "out.txt").read_text(encoding="utf-8")


def runs_of(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "small-sweep").glob("lr-*"))


def until(holds: Callable[[], bool], folder: Path) -> None:
    latest = time.monotonic() + 150
    while not holds():
        assert time.monotonic() < latest, said(folder)
        time.sleep(0.02)


def waiting(folder: Path) -> list[int]:
    return [int(file.read_text()) for file in folder.glob("*.waits")]


@pytest.mark.slow
def test_killed_with_its_runs_it_goes_on_and_ends_in_the_same_bits(
    sweep: Path, command: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = command()
    until(lambda: len(waiting(sweep)) == 2 or process.poll() is not None, sweep)
    for number in (process.pid, *waiting(sweep)):
        os.kill(number, signal.SIGKILL)
    process.wait()
    until(lambda: not any(is_locked(run) for run in runs_of(sweep)), sweep)
    (sweep / "wait").unlink()
    assert [(run.status, run.history.rounds[-1].round) for run in map(read_run, runs_of(sweep))] == [
        ("interrupted", 1),
        ("interrupted", 1),
    ]
    assert command().wait(150) == 0, said(sweep)
    found = json.loads(said(sweep)[said(sweep).index("{\n") :])
    assert [run["status"] for run in found["runs"]] == ["finished", "finished"]
    events = (runs_of(sweep)[0] / "events.jsonl").read_text(encoding="utf-8").splitlines()
    starts = [event for line in events if (event := json.loads(line))["event"] == "RunStarted"]
    assert [event["resumed"] for event in starts] == [False, True]
    alone = [sys.executable, "-m", "hanse", "run", "job.toml", "-q", "--no-report"]
    job = [*alone, "--set", "strategy.local.optimizer.lr=0.2"]
    subprocess.run(job, cwd=sweep, env={**os.environ, "HERE": str(sweep)}, check=True, capture_output=True)
    assert read_run(sweep / "runs" / "small").model_sha256 == read_run(runs_of(sweep)[1]).model_sha256


@pytest.mark.slow
def test_ctrl_c_stops_the_runs_in_order_and_one_that_dies_does_not_end_the_other(
    sweep: Path, command: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = command()
    until(lambda: len(waiting(sweep)) == 2 or process.poll() is not None, sweep)
    process.send_signal(signal.SIGINT)
    until(lambda: "stopping: each run ends after the client at hand" in said(sweep), sweep)
    (sweep / "wait").unlink()
    assert process.wait(150) == 130, said(sweep)
    assert "0 of 2 runs of `small-sweep` have ended" in said(sweep)
    assert "go on with the same command" in said(sweep)
    assert [read_run(run).status for run in runs_of(sweep)] == ["interrupted", "interrupted"]
    # gone on with, one of them dies without a word
    assert command(DIES="lr-0.2").wait(150) == 4, said(sweep)
    assert [read_run(run).status for run in runs_of(sweep)] == ["finished", "interrupted"]
    assert "1 of 2 runs failed" in said(sweep)
    assert "its process ended with code 9" in said(sweep)


def test_a_run_ends_when_the_process_of_its_sweep_is_gone() -> None:
    idle = "import runpy, time, hanse.sweeps.child as c; runpy.run_module = lambda *a, **k: time.sleep(100); c.main()"
    process = subprocess.Popen([sys.executable, "-c", idle], stdin=subprocess.PIPE)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()  # as it is when the other end's process dies
    assert process.wait(60) == -signal.SIGTERM


def test_what_a_run_says_of_its_failure_is_passed_on(tmp_path: Path) -> None:
    process = RunProcess(tmp_path / "nowhere", tmp_path / "logs" / "a.log", environment={})
    latest = time.monotonic() + 60
    while process.code is None:
        assert time.monotonic() < latest
        time.sleep(0.02)
    process.end()
    assert process.code == 5
    assert process.reason().startswith("no run `")


@pytest.mark.slow
def test_the_forge_forks_processes_that_fail_are_killed_and_are_told_from_each_other(tmp_path: Path) -> None:
    with ForkingLaunch() as launch:
        start = functools.partial(launch, environment=threads_of(Need()))
        failing = start(tmp_path / "nowhere", tmp_path / "logs" / "failing.log")
        killed = start(tmp_path / "nowhere", tmp_path / "logs" / "killed.log")
        killed.end()
        latest = time.monotonic() + 60
        while failing.code is None:
            assert time.monotonic() < latest
            time.sleep(0.02)
        failing.end()
        assert failing.code == 5
        assert failing.reason().startswith("no run `")
        assert killed.code in (-signal.SIGKILL, 5)  # 5: it was done before
        assert (tmp_path / "logs" / "failing.log").read_text(encoding="utf-8").startswith("error: no run `")
        killed.ask_to_stop()  # nobody is there any more


@pytest.mark.slow
def test_a_forge_that_is_gone_is_replaced(tmp_path: Path) -> None:
    with ForkingLaunch() as launch:
        start = functools.partial(launch, environment=threads_of(Need()))
        start(tmp_path / "nowhere", tmp_path / "a.log").end()
        forge = launch._forge
        assert forge is not None
        forge._process.kill()
        forge._process.wait()
        lost = start(tmp_path / "nowhere", tmp_path / "b.log")
        assert lost.code == -signal.SIGKILL
        assert "ended by SIGKILL" in lost.reason()
        again = start(tmp_path / "nowhere", tmp_path / "c.log")
        latest = time.monotonic() + 60
        while again.code is None:
            assert time.monotonic() < latest
            time.sleep(0.02)
        assert again.code == 5
        assert lost.code == -signal.SIGKILL


def test_threads_and_gpus_get_a_fresh_process(tmp_path: Path) -> None:
    with ForkingLaunch() as launch:
        for number, need in enumerate((Need(threads=2), Need(gpu=True))):
            place = Places(cores=2, devices=("0",)).take(need)
            assert place is not None
            process = launch(tmp_path / "nowhere", tmp_path / f"{number}.log", environment=place.environment)
            assert isinstance(process, RunProcess)
            process.end()
        assert launch._forge is None
