"""The simulator: same bits however it is run, failures, interruption, resumption."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDRegressor

from hanse.core.errors import (
    DataError,
    JobProblems,
    PipelineError,
    RunError,
    RunInterrupted,
    RunLockedError,
    SettingError,
    StorageError,
    TaskError,
)
from hanse.core.events import ClientFailed, ClientFinished, Event, Noted, RoundFinished, RunEnded
from hanse.core.local_work import LocalWork
from hanse.data.federated import FederatedDataset
from hanse.pipeline.recipes import plain
from hanse.rounds.run_folder import find_run, list_runs, locked, new_run_folder, read_run
from hanse.rounds.selection import Cyclic, Fixed, Poisson, Uniform
from hanse.rounds.settings import EvaluateSettings, RoundSettings, StopSettings
from hanse.rounds.tensor_files import load_model
from hanse.simulation.checks import check_simulation
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import run_simulation, simulate
from hanse.strategies.cyclic import CyclicTransfer
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedsgd import FedSGD
from hanse.strategies.local_only import LocalOnly
from hanse.tasks import CallableTask, Estimator


def build(dataset: FederatedDataset, task: Any, **changes: Any) -> Simulation:
    parts: dict[str, Any] = {
        "dataset": dataset,
        "task": bind_task(task, dataset),
        "strategy": FedAvg(),
        "settings": RoundSettings(rounds=6, seed=3, cohort=Uniform(size=4)),
        **changes,
    }
    parts.setdefault("pipeline", plain(weighting=parts["strategy"].weighting))
    return Simulation(**parts)


def failing(task: CallableTask, fails: Callable[[np.ndarray], bool], how: Callable[[], Any]) -> CallableTask:
    """The task, but `how()` is what training returns (or raises) where `fails(x)`."""

    def train(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> Any:
        return how() if fails(x) else task.train(weights, x, y, seed)

    return replace(task, train=train)


def test_learns_the_law(federation: FederatedDataset, task: CallableTask) -> None:
    run = simulate(federation, task, FedAvg(), rounds=15, cohort=4, seed=1)
    assert run.record.status == "finished"
    losses = run.history.series("loss", "federated")
    assert losses[0] > 0.5
    assert losses[15] < 0.05
    assert run.history.last is not None
    assert len(run.history.last.cohort) == 4


@pytest.mark.parametrize("strategy", [FedAvg(), FedAvg(weighting="uniform"), LocalOnly()])
@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bits_with_any_number_of_workers(
    federation: FederatedDataset, task: CallableTask, strategy: Any, workers: int
) -> None:
    alone = simulate(federation, task, strategy, rounds=4, seed=5)
    pooled = simulate(federation, task, strategy, rounds=4, seed=5, workers=workers)
    assert pooled.record.model_sha256 == alone.record.model_sha256
    assert [r.federated for r in pooled.history.rounds] == [r.federated for r in alone.history.rounds]
    assert pooled.history.last_scores() == alone.history.last_scores()


def test_another_seed_gives_another_model(federation: FederatedDataset, task: CallableTask) -> None:
    runs = [simulate(federation, task, FedAvg(), rounds=2, cohort=3, seed=seed) for seed in (1, 2, 1)]
    first, second, again = (run.record.model_sha256 for run in runs)
    assert first == again != second


def test_federated_metrics_are_those_of_the_pooled_examples(federation: FederatedDataset, task: CallableTask) -> None:
    run = simulate(federation, task, FedAvg(), rounds=2, seed=1)
    tests = [federation.client(client).test for client in federation.clients]
    sums = task.evaluate(
        run.params.arrays(), np.concatenate([t.x for t in tests]), np.concatenate([t.y for t in tests])
    )
    assert run.history.last is not None
    assert run.history.last.federated == pytest.approx({"loss": sums["loss"] / sums["count"]})


def test_bytes_are_those_of_the_vectors(federation: FederatedDataset, task: CallableTask) -> None:
    run = simulate(federation, task, FedAvg(), rounds=3, cohort=2, seed=1)
    assert (run.history.bytes_up, run.history.bytes_down) == (3 * 2 * 7 * 4, 3 * 2 * 7 * 4)


def test_local_only_exchanges_nothing_and_each_trains_for_itself(
    federation: FederatedDataset, task: CallableTask
) -> None:
    run = simulate(federation, task, LocalOnly(), rounds=3, seed=1)
    assert run.history.bytes_up == run.history.bytes_down == 0
    losses = {score.metrics["loss"] for score in run.history.last_scores()}
    assert len(losses) == len(federation)


def test_cyclic_transfer_visits_one_client_after_another(federation: FederatedDataset, task: CallableTask) -> None:
    run = simulate(federation, task, CyclicTransfer(), rounds=10, cohort=Cyclic(), seed=1)
    visited = [record.cohort for record in run.history.rounds[1:]]
    assert visited == [(f"site-{i % 8}",) for i in range(10)]
    with pytest.raises(PipelineError, match="at most 1 client"):
        simulate(federation, task, CyclicTransfer(), rounds=1, cohort=2)


def test_a_client_that_raises_costs_its_own_update(federation: FederatedDataset, task: CallableTask) -> None:
    def raise_error() -> Any:
        raise ZeroDivisionError("no luck")

    events: list[Event] = []
    lame = failing(task, lambda x: len(x) == 8, raise_error)  # site-0 trains on 8 rows
    run = run_simulation(build(federation, lame, settings=RoundSettings(rounds=2, seed=1)), sinks=(events.append,))
    for record in run.history.rounds[1:]:
        assert [failure.client for failure in record.failures] == ["site-0"]
        assert record.failures[0].kind == "ZeroDivisionError"
        assert record.num_updates == 7
    assert len([e for e in events if isinstance(e, ClientFailed)]) == 2
    assert len([e for e in events if isinstance(e, ClientFinished)]) == 14
    # and the result is as if the client had not been there
    without = run_simulation(
        build(
            federation,
            task,
            settings=RoundSettings(rounds=2, seed=1, cohort=Fixed(clients=tuple(federation.clients[1:]))),
        )
    )
    assert run.record.model_sha256 == without.record.model_sha256


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_non_finite_update_is_dropped_by_name(
    federation: FederatedDataset, task: CallableTask, poison: float
) -> None:
    bad = {"w": np.full(6, poison, dtype=np.float32), "b": np.zeros(1, dtype=np.float32)}
    lame = failing(task, lambda x: len(x) == 8, lambda: bad)
    run = run_simulation(build(federation, lame, settings=RoundSettings(rounds=2, seed=1)))
    assert run.params.is_finite()
    assert {f.client for r in run.history.rounds for f in r.failures} == {"site-0"}
    assert {f.kind for r in run.history.rounds for f in r.failures} == {"NonFiniteUpdateError"}


def test_below_min_clients_the_round_is_abandoned_and_said_so(federation: FederatedDataset, task: CallableTask) -> None:
    def raise_error() -> Any:
        raise ValueError("busy")

    lame = failing(task, lambda x: len(x) == 8, raise_error)
    cohort = Fixed(clients=("site-0", "site-1"))
    run = run_simulation(build(federation, lame, settings=RoundSettings(rounds=2, cohort=cohort, min_clients=2)))
    assert [record.status for record in run.history.rounds] == ["finished", "abandoned", "abandoned"]
    assert "1 of 2 clients" in run.history.rounds[1].note
    assert run.params.sha256() == task.init_params(0).sha256()


def test_an_empty_poisson_cohort_abandons_the_round(federation: FederatedDataset, task: CallableTask) -> None:
    run = run_simulation(build(federation, task, settings=RoundSettings(rounds=40, cohort=Poisson(rate=0.05))))
    empty = [record for record in run.history.rounds[1:] if not record.cohort]
    assert empty
    assert all(record.status == "abandoned" for record in empty)


def test_when_every_client_always_fails_the_run_says_why(federation: FederatedDataset, task: CallableTask) -> None:
    def raise_error() -> Any:
        raise KeyError("column `age`")

    with pytest.raises(RunError, match=r"every client failed.*column `age`"):
        simulate(federation, failing(task, lambda _: True, raise_error), FedAvg(), rounds=3)


def test_early_stopping_by_patience_and_by_target(federation: FederatedDataset, task: CallableTask) -> None:
    events: list[Event] = []
    settings = RoundSettings(rounds=50, seed=1, stop=StopSettings(target=0.05))
    run = run_simulation(build(federation, task, settings=settings), sinks=(events.append,))
    assert run.record.status == "stopped early"
    assert run.history.last is not None
    assert run.history.last.round < 50
    assert any(isinstance(e, Noted) and "the target was 0.05" in e.message for e in events)
    patient = RoundSettings(rounds=50, seed=1, stop=StopSettings(patience=2, min_delta=0.5))
    stopped = run_simulation(build(federation, task, settings=patient))
    assert stopped.record.status == "stopped early"


def test_evaluation_every_k_rounds_and_the_last(federation: FederatedDataset, task: CallableTask) -> None:
    evaluate = EvaluateSettings(every=3, initial=False, clients=2)
    run = run_simulation(build(federation, task, settings=RoundSettings(rounds=7, evaluate=evaluate)))
    assert [r.round for r in run.history.rounds if r.federated is not None] == [3, 6, 7]
    assert len(run.history.last_scores()) == 2


def test_best_and_last_model_are_kept(federation: FederatedDataset, task: CallableTask, tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path, "kept")
    run = run_simulation(build(federation, task), folder=folder)
    assert load_model(folder / "models" / "last.safetensors").sha256() == run.record.model_sha256
    best = load_model(folder / "models" / "best.safetensors")
    tests = [federation.client(client).test for client in federation.clients]
    x, y = np.concatenate([t.x for t in tests]), np.concatenate([t.y for t in tests])
    sums = task.evaluate(best.arrays(), x, y)
    assert sums["loss"] / sums["count"] == pytest.approx(min(run.history.series("loss", "federated").values()))


def test_a_stopped_run_resumes_to_the_same_bits(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    whole = run_simulation(build(federation, task), folder=new_run_folder(tmp_path, "whole"))
    folder = new_run_folder(tmp_path, "stopped")
    seen = 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        if isinstance(event, ClientFinished):
            seen += 1
            if seen == 10:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted):
        run_simulation(build(federation, task), folder=folder, sinks=(interrupt,))
    assert seen == 10  # it stopped after the client at hand
    interrupted = read_run(folder)
    assert interrupted.status == "interrupted"
    assert interrupted.history.last is not None
    assert interrupted.history.last.round == 2
    resumed = run_simulation(build(federation, task), folder=folder)
    assert resumed.record.model_sha256 == whole.record.model_sha256
    assert read_run(folder).status == "finished"
    strip = [replace(record, seconds={}) for record in resumed.history.rounds]
    assert strip == [replace(record, seconds={}) for record in whole.history.rounds]


def test_more_rounds_can_be_asked_of_a_finished_run(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    folder = new_run_folder(tmp_path, "longer")
    short = RoundSettings(rounds=2, seed=3, cohort=Uniform(size=4))
    run_simulation(build(federation, task, settings=short), folder=folder)
    longer = run_simulation(build(federation, task), folder=folder)
    whole = run_simulation(build(federation, task))
    assert longer.record.model_sha256 == whole.record.model_sha256


def test_events_are_logged_and_the_run_is_read_back(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    folder = new_run_folder(tmp_path, "logged")
    events: list[Event] = []
    run = run_simulation(build(federation, task), folder=folder, sinks=(events.append,))
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [type(event).__name__ for event in events]
    assert len([e for e in events if isinstance(e, RoundFinished)]) == 7
    assert isinstance(events[-1], RunEnded)
    back = read_run(folder)
    assert back.model_sha256 == run.record.model_sha256
    assert back.history == run.history
    assert find_run("logged", tmp_path) == folder
    assert list_runs(tmp_path) == [folder]


def test_only_one_process_works_on_a_run(federation: FederatedDataset, task: CallableTask, tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path, "mine")
    with locked(folder), pytest.raises(RunLockedError):
        run_simulation(build(federation, task), folder=folder)


def test_a_name_that_exists_gets_a_number(tmp_path: Path) -> None:
    names = [new_run_folder(tmp_path, "run").name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]
    with pytest.raises(StorageError):
        new_run_folder(tmp_path, "../run")


def test_what_does_not_fit_is_said_before_anything_runs(federation: FederatedDataset, task: CallableTask) -> None:
    with pytest.raises(SettingError, match="cohort of 9 can't be selected from 8"):
        simulate(federation, task, FedAvg(), cohort=9)
    with pytest.raises(TaskError, match="gradient"):
        simulate(federation, task, FedSGD())
    with pytest.raises(TaskError, match=r"no tensor matches `head\.\*`"):
        simulate(federation, task, FedAvg(local=LocalWork(personal=("head.*",))))
    with pytest.raises(PipelineError, match="weighs clients by uniform"):
        check_simulation(build(federation, task, pipeline=plain(weighting="uniform")))
    with pytest.raises(SettingError, match="no client `site-99`"):
        simulate(federation, task, FedAvg(), cohort=Fixed(clients=("site-99",)))


def test_a_client_without_data_costs_its_own_update(task: CallableTask) -> None:
    empty = (np.zeros((0, 6), dtype=np.float32), np.zeros(0, dtype=np.float32))
    full = (np.ones((8, 6), dtype=np.float32), np.ones(8, dtype=np.float32))
    dataset = FederatedDataset.from_arrays({"empty": empty, "full": full})
    run = simulate(dataset, task, FedAvg(), rounds=1)
    assert run.history.last is not None
    (lost,) = run.history.last.failures
    assert lost.client == "empty"
    assert "no training example" in lost.message
    with pytest.raises(DataError):
        FederatedDataset.from_arrays({})


def test_spawned_workers_give_the_same_bits(federation: FederatedDataset) -> None:
    task = bind_task(Estimator(estimator=SGDRegressor()), federation)
    settings = RoundSettings(rounds=2, seed=1)
    alone = run_simulation(build(federation, task, settings=settings))
    engine = EngineSettings(workers=2, start_method="spawn")
    spawned = run_simulation(build(federation, task, settings=settings, engine=engine))
    assert spawned.record.model_sha256 == alone.record.model_sha256


def test_all_that_does_not_fit_is_said_at_once(federation: FederatedDataset, task: CallableTask) -> None:
    settings = RoundSettings(rounds=1, cohort=Uniform(size=9))
    strategy = FedAvg(local=LocalWork(personal=("head.*",)))
    with pytest.raises(JobProblems) as caught:
        check_simulation(build(federation, task, settings=settings, strategy=strategy))
    assert [type(problem) for problem in caught.value.problems] == [SettingError, TaskError]
