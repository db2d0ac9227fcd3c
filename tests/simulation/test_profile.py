"""A profiled run: all parts are there, they add up, and no bit of the result changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hanse.data.federated import FederatedDataset
from hanse.pipeline.recipes import plain
from hanse.rounds.profile import profile_of
from hanse.rounds.run_folder import new_run_folder, read_run
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask

EVERY_PART = {
    "arithmetic",
    "data",
    "stages",
    "clients",
    "aggregation",
    "evaluation",
    "journal",
    "events",
    "rest",
}


def _simulation(dataset: FederatedDataset, task: CallableTask, *, workers: int = 1) -> Simulation:
    return Simulation(
        dataset=dataset,
        task=task,
        strategy=FedAvg(),
        pipeline=plain(),
        settings=RoundSettings(rounds=3, seed=1, cohort=Uniform(size=4)),
        engine=EngineSettings(workers=workers),
    )


def test_every_part_of_every_round_is_in_the_record(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    run = run_simulation(_simulation(federation, task), folder=new_run_folder(tmp_path, "a"), profile=True)
    first, *others = run.history.rounds[1:]
    assert set(first.profile) == EVERY_PART
    for record in others:
        assert EVERY_PART - {"data"} <= set(record.profile) <= EVERY_PART  # trainers may keep clients' examples
        assert all(seconds >= 0.0 for seconds in record.profile.values())
    assert sum(sum(record.profile.values()) for record in run.history.rounds) <= run.record.seconds
    kept = read_run(tmp_path / "a").history
    assert kept == run.history
    found = profile_of(kept)
    assert found is not None
    assert found.rounds == 2
    assert found.total == pytest.approx(sum(sum(record.profile.values()) for record in kept.rounds[2:]))
    assert sum(found.share(part) for part in EVERY_PART) == pytest.approx(1.0)


def test_workers_arithmetic_is_the_wait_for_clients(federation: FederatedDataset, task: CallableTask) -> None:
    run = run_simulation(_simulation(federation, task, workers=2), profile=True)
    for record in run.history.rounds[1:]:
        assert set(record.profile) == EVERY_PART - {"arithmetic", "data"}


def test_a_profile_changes_nothing_else(federation: FederatedDataset, task: CallableTask, tmp_path: Path) -> None:
    plainly = run_simulation(_simulation(federation, task), folder=new_run_folder(tmp_path, "plain"))
    profiled = run_simulation(_simulation(federation, task), folder=new_run_folder(tmp_path, "profiled"), profile=True)
    assert profiled.params.sha256() == plainly.params.sha256()
    assert profile_of(plainly.history) is None
    events = [
        [json.loads(line)["event"] for line in (tmp_path / name / "events.jsonl").read_text().splitlines()]
        for name in ("plain", "profiled")
    ]
    assert events[0] == events[1]
