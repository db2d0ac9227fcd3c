"""Runs on a cluster of two nodes: the same bits as in one process, whatever is lost on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.secure_sum import SecureSum
from hanse.core.errors import RunInterrupted
from hanse.core.events import ClientFinished, Event, Noted
from hanse.data.examples import Examples
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.sparsify import TopK
from hanse.rounds.run_folder import new_run_folder, read_run
from hanse.rounds.selection import Everyone
from hanse.rounds.settings import RoundSettings
from hanse.simulation.engine import EngineSettings
from hanse.simulation.ray.transport import RayTransport
from hanse.simulation.simulate import SimulatedRun, run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.local_only import LocalOnly
from hanse.tasks import CallableTask
from hanse.testing import check_transport
from tests.simulation.conftest import make_federation
from tests.simulation.test_simulate import build, failing

pytestmark = pytest.mark.slow
RAY = EngineSettings(engine="ray", workers=2)
EVERYONE = RoundSettings(rounds=3, seed=3, cohort=Everyone())


@pytest.fixture(autouse=True)
def _connected(cluster: Any) -> None:
    """All tests here use the cluster."""


def same(one: SimulatedRun, other: SimulatedRun) -> None:
    """Everything is the same but for the time that it took."""
    assert one.record.model_sha256 == other.record.model_sha256
    for here, there in zip(one.history.rounds, other.history.rounds, strict=True):
        assert replace(here, seconds={}) == replace(there, seconds={})


def test_it_is_a_transport(tmp_path: Path) -> None:
    def make(factory: Any) -> RayTransport:
        transport = RayTransport(factory, kept_folder=tmp_path)
        transport.start()
        return transport

    check_transport(make)


@pytest.mark.parametrize("strategy", [FedAvg(), LocalOnly()], ids=["shared", "personal"])
@pytest.mark.parametrize("clients", [3, 40])
def test_a_run_ends_in_the_bits_of_one_process(task: CallableTask, clients: int, strategy: Any) -> None:
    federation, notes = make_federation(clients), list[str]()

    def hear(event: Event) -> None:
        if isinstance(event, Noted):
            notes.append(event.message)

    parts = {"settings": EVERYONE, "strategy": strategy}
    alone = run_simulation(build(federation, task, **parts))
    spread = run_simulation(build(federation, task, engine=RAY, **parts), sinks=(hear,))
    same(alone, spread)
    assert "engine: Ray, 2 workers on 2 nodes" in notes


def test_what_clients_keep_for_stages_reaches_the_next_round(task: CallableTask) -> None:
    pipeline = Pipeline(stages=(TopK(share=0.3), Zstd()))
    parts = {"settings": EVERYONE, "pipeline": pipeline}
    federation = make_federation(8)
    same(*(run_simulation(build(federation, task, engine=engine, **parts)) for engine in (EngineSettings(), RAY)))


def test_updates_in_a_secure_sum_are_added_up_in_one_place(task: CallableTask) -> None:
    pipeline = Pipeline(stages=(Modular(bits=20, range=1.0),), aggregator=SecureSum(), weighting="uniform")
    parts: dict[str, Any] = {
        "settings": EVERYONE,
        "pipeline": pipeline,
        "strategy": FedAvg(weighting="uniform"),
    }
    federation = make_federation(8)
    same(*(run_simulation(build(federation, task, engine=engine, **parts)) for engine in (EngineSettings(), RAY)))


def test_clients_that_fail_cost_what_they_cost_in_one_process(task: CallableTask) -> None:
    def fail() -> Any:
        raise ValueError("lame")

    federation = make_federation(20)
    first, second = (federation.num_examples(client) for client in ("site-1", "site-2"))
    lame = failing(task, lambda x: len(x) == first, fail)
    endless = failing(lame, lambda x: len(x) == second, lambda: {"w": np.full(6, np.nan, "f4"), "b": np.zeros(1, "f4")})
    runs = [run_simulation(build(federation, endless, settings=EVERYONE, engine=e)) for e in (EngineSettings(), RAY)]
    same(*runs)
    kinds = {failure.kind for failure in runs[0].history.rounds[1].failures}
    assert kinds == {"ValueError", "NonFiniteUpdateError"}


def test_a_stopped_run_goes_on_in_another_engine(task: CallableTask, tmp_path: Path) -> None:
    federation, folder = make_federation(12), new_run_folder(tmp_path, "stopped")
    whole = run_simulation(build(federation, task, settings=EVERYONE))

    def interrupt(event: Event) -> None:
        if isinstance(event, ClientFinished) and event.round == 2:
            os.kill(os.getpid(), 2)

    with pytest.raises(RunInterrupted):
        run_simulation(build(federation, task, settings=EVERYONE, engine=RAY), folder=folder, sinks=(interrupt,))
    assert read_run(folder).status == "interrupted"
    same(whole, run_simulation(build(federation, task, settings=EVERYONE), folder=folder))


def test_a_full_disk_at_what_clients_keep_stops_the_run(task: CallableTask, tmp_path: Path) -> None:
    """The nodes share no disk with the run: what clients keep is written where the run folder is."""
    federation, folder = make_federation(8), new_run_folder(tmp_path, "full")
    parts = {"strategy": LocalOnly(), "settings": EVERYONE}
    whole = run_simulation(build(federation, task, **parts))
    blocked = folder / "clients"
    blocked.write_text("no folder")
    with pytest.raises(Exception, match="clients"):
        run_simulation(build(federation, task, engine=RAY, **parts), folder=folder)
    blocked.unlink()
    same(whole, run_simulation(build(federation, task, engine=RAY, **parts), folder=folder))


class Trap:
    """Training that stops at one client of round 2, the first time: says so through a pipe, and waits for its end."""

    def __init__(self, task: CallableTask, folder: Path, *, at: Examples) -> None:
        self._task, self._at = task, at.x
        self._pipe, self._sprung = folder / "pipe", folder / "sprung"
        os.mkfifo(self._pipe)

    def set(self) -> CallableTask:
        train, pipe, sprung, at = self._task.train, self._pipe, self._sprung, self._at

        def stopping(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> Any:
            if np.array_equal(x, at) and weights["w"].any() and not sprung.exists():
                sprung.touch()
                pipe.write_text(str(os.getpid()))
                threading.Event().wait()
            return train(weights, x, y, seed)

        return replace(self._task, train=stopping)

    def when_sprung(self, act: Callable[[int], Any]) -> threading.Thread:
        """Call with the process's id."""
        thread = threading.Thread(target=lambda: act(int(self._pipe.read_text())))
        thread.start()
        return thread


def test_a_node_killed_in_mid_round_changes_nothing(cluster: Any, task: CallableTask, tmp_path: Path) -> None:
    federation = make_federation(24)
    whole = run_simulation(build(federation, task, settings=EVERYONE))
    trap, notes = Trap(task, tmp_path, at=federation.client("site-3").train), list[str]()
    second = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    killer = trap.when_sprung(lambda _: cluster.remove_node(second, allow_graceful=False))

    def hear(event: Event) -> None:
        if isinstance(event, Noted):
            notes.append(event.message)

    try:
        run = run_simulation(build(federation, trap.set(), settings=EVERYONE, engine=RAY), sinks=(hear,))
        killer.join()
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=150 * 2**20)
    same(whole, run)
    assert any(note.startswith("a worker on node") and "was lost" in note for note in notes)


def test_a_worker_killed_in_mid_round_changes_nothing(task: CallableTask, tmp_path: Path) -> None:
    federation = make_federation(24)
    whole = run_simulation(build(federation, task, settings=EVERYONE))
    trap = Trap(task, tmp_path, at=federation.client("site-20").train)
    killer = trap.when_sprung(lambda process: os.kill(process, 9))
    run = run_simulation(build(federation, trap.set(), settings=EVERYONE, engine=RAY))
    killer.join()
    same(whole, run)


def test_a_client_on_which_workers_are_lost_again_and_again_is_given_up(task: CallableTask) -> None:
    federation = make_federation(6)
    size = federation.num_examples("site-1")
    deadly = failing(task, lambda x: len(x) == size, lambda: os._exit(3))
    run = run_simulation(build(federation, deadly, settings=replace(EVERYONE, rounds=1), engine=RAY))
    (failure,) = run.history.rounds[1].failures
    assert (failure.client, failure.kind) == ("site-1", "WorkerLostError")
    assert run.history.rounds[1].num_updates == 5
