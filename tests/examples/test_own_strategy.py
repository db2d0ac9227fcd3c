"""The strategy that the documentation writes: reduction, a hand-computed oracle, bad input, and a run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.core.params import Params
from hanse.data import FederatedDataset, Split
from hanse.simulation.simulate import simulate
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import linear_regression

PATH = Path(__file__).parents[2] / "examples" / "own_strategy" / "fedavgm.py"


@pytest.fixture(scope="module")
def fedavgm() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("fedavgm", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fedavgm"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fedavgm"]


@pytest.fixture(scope="module")
def federation() -> FederatedDataset:
    rng = np.random.default_rng(0)
    arrays = {}
    for i in range(4):
        x = rng.normal(loc=i / 4, size=(12 + 4 * i, 3)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x @ np.array([1.0, -2.0, 0.5]) + 1).astype(np.float32))
    return FederatedDataset.from_arrays(arrays, split=Split(test=0.25), seed=1)


LOCAL = LocalWork(epochs=2, batch_size=8, optimizer=SGD(lr=0.05))


def run(federation: FederatedDataset, strategy: Any, rounds: int = 5) -> Any:
    return simulate(federation, linear_regression(), strategy, rounds=rounds, cohort=3, seed=2)


def test_reduces_to_fedavg(fedavgm: ModuleType, federation: FederatedDataset) -> None:
    still = run(federation, fedavgm.FedAvgM(beta=0.0, eta=1.0, local=LOCAL))
    fedavg = run(federation, FedAvg(local=LOCAL))
    assert still.record.model_sha256 == fedavg.record.model_sha256


def test_two_steps_by_hand(fedavgm: ModuleType) -> None:
    """β = 0.5, η = 2, w = 0: d = 1 gives v = 1, w = 2; then d = 3 gives v = 3.5, w = 9."""
    strategy = fedavgm.FedAvgM(beta=0.5, eta=2.0)
    state = strategy.init(Params.from_arrays({"w": np.zeros(1)}))
    for delta, velocity, weight in ((1.0, 1.0, 2.0), (3.0, 3.5, 9.0)):
        mean = Params.from_arrays({"w": np.array([delta])})
        state = strategy.step(state, Aggregate(delta=mean, num_clients=2, num_examples=10))
        assert state.velocity.numpy().tolist() == [velocity]
        assert state.params.numpy().tolist() == [weight]


def test_learns(fedavgm: ModuleType, federation: FederatedDataset) -> None:
    losses = run(federation, fedavgm.FedAvgM(beta=0.5, local=LOCAL), rounds=20).history.series("loss", "federated")
    assert losses[20] < losses[0] / 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"beta": 1.0}, "beta"), ({"beta": -0.1}, "beta"), ({"eta": 0.0}, "eta"), ({"eta": float("nan")}, "eta")],
)
def test_refuses_settings_out_of_range(fedavgm: ModuleType, settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        fedavgm.FedAvgM(**settings)
