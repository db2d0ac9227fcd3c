import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from hanse.core.corrections import Proximal
from hanse.core.errors import RunError
from hanse.core.events import Event, Noted
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.core.params import Params
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.data.preprocessing import Standardize
from hanse.data.split import Split
from hanse.pipeline.recipes import plain
from hanse.rounds.evaluation import add_sums
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import EvaluateSettings, RoundSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import run_simulation
from hanse.simulation.worth_joining import PerClient, baseline_work, worth_joining
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedprox import FedProx
from hanse.strategies.fedsgd import FedSGD
from hanse.tasks import CallableTask, Classification, Linear
from hanse.trainers.auto import make_trainer

WORK = LocalWork(epochs=2, batch_size=8, optimizer=SGD(lr=0.1))


def data(*, empty: bool = False, sizes: tuple[int, ...] = (40, 60, 30)) -> FederatedDataset:
    rng = np.random.default_rng(3)
    arrays = {}
    for i, size in enumerate(sizes):
        x = rng.normal(loc=10 * i, scale=1 + i, size=(size, 3)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x.sum(axis=1) > 30 * i).astype(np.int64))
    if empty:
        arrays["bare"] = (np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    return FederatedDataset.from_arrays(arrays, split=Split(test=0.3), seed=1)


def simulation(dataset: FederatedDataset | None = None, **changes: Any) -> Simulation:
    dataset = dataset or data()
    strategy = changes.pop("strategy", FedAvg(local=WORK))
    task = changes.pop("task", None) or bind_task(Classification(model=Linear()), dataset)
    return Simulation(
        dataset=dataset,
        task=task,
        strategy=strategy,
        pipeline=plain(weighting=strategy.weighting),
        settings=RoundSettings(rounds=3, seed=5, **changes),
    )


@pytest.mark.slow
def test_each_own_model_is_that_of_a_federation_of_one() -> None:
    """The oracle: train every client in a federation that it has to itself."""
    whole = data()
    compared = worth_joining(simulation(whole), run_simulation(simulation(whole)))
    for i, client in enumerate(whole.clients):
        alone = FederatedDataset.from_clients({client: whole.client(client)})
        run = run_simulation(simulation(alone))
        (score,) = run.history.last_scores()
        assert compared.columns["own"][i] == pytest.approx(score.metrics["accuracy"])
        assert compared.num_examples[i] == score.num_examples == len(whole.client(client).test)


def test_the_pooled_model_is_trained_on_everything_and_fits_pooled_moments() -> None:
    sim = simulation()
    compared = worth_joining(sim, run_simulation(sim), baselines=("pooled",))
    assert list(compared.columns) == ["federated", "pooled"]
    together = run_simulation(replace(sim, dataset=sim.dataset.pooled()))
    assert compared.overall["pooled"] == pytest.approx(together.history.last_scores()[0].metrics["accuracy"])
    # and over the clients it is the mean weighted by held-out examples
    by_client = np.average(compared.columns["pooled"], weights=compared.num_examples)
    assert compared.overall["pooled"] == pytest.approx(by_client)


def test_the_federated_column_is_what_the_run_measured_last() -> None:
    sim = simulation()
    run = run_simulation(sim)
    compared = worth_joining(sim, run, baselines=("local",))
    assert compared.columns["federated"] == tuple(s.metrics["accuracy"] for s in run.history.last_scores())
    assert compared.overall["federated"] == run.history.rounds[-1].federated["accuracy"]  # type: ignore[index]
    assert (compared.metric, compared.better) == ("accuracy", "max")


def test_preprocessing_per_client_is_fitted_to_the_pool_too() -> None:
    dataset = data()
    task = bind_task(Classification(model=Linear(), preprocess=Standardize(fit="client")), dataset)
    sim = simulation(dataset, task=task)
    compared = worth_joining(sim, run_simulation(sim), baselines=("pooled",))
    federated = simulation(dataset, task=bind_task(Classification(model=Linear()), dataset))
    same = worth_joining(federated, run_simulation(federated), baselines=("pooled",))
    assert compared.columns["pooled"] == same.columns["pooled"]


def test_who_holds_no_examples_has_no_own_model() -> None:
    sim = simulation(data(empty=True))
    compared = worth_joining(sim, run_simulation(sim))
    assert "bare" not in compared.clients  # it keeps nothing back either
    assert not any(math.isnan(value) for value in compared.columns["own"])


def test_who_fails_alone_in_every_round_has_no_own_model() -> None:
    """Its model would be the one before training, and joining would look better than it is."""

    def train(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        if len(x) == 5:
            raise ValueError("too little memory")
        return {"mean": np.array([y.mean()])}

    def evaluate(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        return {"count": float(len(y)), "loss": float(np.abs(y - weights["mean"]).sum())}

    dataset = FederatedDataset.from_arrays(
        {"lame": (np.zeros((10, 1)), np.ones(10)), "well": (np.zeros((30, 1)), np.ones(30))}, split=Split(test=0.5)
    )
    sim = simulation(dataset, task=CallableTask(init=lambda: {"mean": np.zeros(1)}, train=train, evaluate=evaluate))
    compared = worth_joining(sim, run_simulation(sim), baselines=("local",))
    assert math.isnan(compared.columns["own"][0])
    assert compared.columns["own"][1] == 0.0
    assert compared.columns["federated"] == (0.0, 0.0)


def test_small_cohorts_and_few_evaluated_clients() -> None:
    sim = simulation(cohort=Uniform(size=1), evaluate=EvaluateSettings(clients=2, every=2))
    compared = worth_joining(sim, run_simulation(sim))
    assert len(compared.clients) == 2
    assert all(len(column) == 2 for column in compared.columns.values())


def test_without_held_out_examples_there_is_nothing_to_compare() -> None:
    sim = simulation(evaluate=EvaluateSettings(clients="none"))
    with pytest.raises(RunError, match=r"measured none[\s\S]*data\.split\.test"):
        worth_joining(sim, run_simulation(sim))


def test_events_are_passed_on() -> None:
    events: list[Event] = []
    sim = simulation()
    worth_joining(sim, run_simulation(sim), emit=events.append)
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert [note for note in notes if note.startswith("baseline")] == [
        "baseline: each client alone",
        "baseline: all data in one place",
    ]


@pytest.mark.slow
def test_workers_do_not_change_a_comparison() -> None:
    sim = simulation()
    pool = replace(sim, engine=replace(sim.engine, workers=2))
    assert worth_joining(sim, run_simulation(sim)) == worth_joining(pool, run_simulation(pool))


def test_the_baselines_work_is_the_strategys_without_what_is_federated() -> None:
    assert baseline_work(FedAvg(local=WORK)) == WORK
    assert baseline_work(FedProx(mu=0.5, local=WORK)) == WORK
    personal = replace(WORK, personal=("head.*",), correction=Proximal(mu=1.0))
    assert baseline_work(FedAvg(local=personal)) == WORK
    one_step = baseline_work(FedSGD(lr=0.3, batch_size=7))
    assert (one_step.upload, one_step.batch_size, one_step.optimizer.lr) == ("delta", "all", 0.3)
    assert one_step.num_steps(100) == 1


def test_tasks_of_other_kinds_are_compared_too() -> None:
    def train(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        return {"mean": np.array([y.mean()])}

    def evaluate(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        return {"count": float(len(y)), "loss": float(np.abs(y - weights["mean"]).sum())}

    dataset = FederatedDataset.from_arrays(
        {"low": (np.zeros((10, 1)), np.zeros(10)), "high": (np.zeros((30, 1)), np.ones(30))}, split=Split(test=0.5)
    )
    task = CallableTask(init=lambda: {"mean": np.zeros(1)}, train=train, evaluate=evaluate)
    sim = simulation(dataset, task=task)
    compared = worth_joining(sim, run_simulation(sim))
    assert compared.better == "min"
    assert compared.columns["own"] == (0.0, 0.0)
    assert compared.columns["pooled"] == pytest.approx((0.75, 0.25))
    assert compared.columns["federated"] == pytest.approx((0.75, 0.25))


def test_preprocessing_of_ones_own_for_each_client() -> None:
    inner = Standardize()
    wrapped = PerClient(inner)
    x = np.array([[1.0], [3.0]], dtype=np.float32)
    assert wrapped.scope == "client"
    statistics = wrapped.local_statistics(x)
    np.testing.assert_array_equal(wrapped.apply(x, statistics), inner.apply(x, inner.local_statistics(x)))


def test_a_trained_model_beats_an_untrained_one_in_the_comparison() -> None:
    """The columns are of trained models: they differ from the model before training."""
    sim = simulation()
    compared = worth_joining(sim, run_simulation(sim))
    trainer, _ = make_trainer(sim.task, sim.engine.trainer)
    start: Params = sim.task.init_params(5)
    assert sim.task.preprocess is not None
    preprocess, sums = sim.task.preprocess, []
    for client in sim.dataset.clients:
        own = sim.dataset.client(client)
        x = preprocess.apply(own.test.x, preprocess.local_statistics(own.train.x))
        sums.append(trainer.evaluate(start, (client, "untrained"), partial(Examples, x, own.test.y)))
    assert compared.overall["own"] > sim.task.metrics(add_sums(sums))["accuracy"] + 0.2
