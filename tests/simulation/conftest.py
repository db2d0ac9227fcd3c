"""A small federation that needs no torch, for tests of the engine."""

from __future__ import annotations

import numpy as np
import pytest

from hanse.data.federated import FederatedDataset
from hanse.data.split import Split
from hanse.tasks import CallableTask


def _init() -> dict[str, np.ndarray]:
    return {"w": np.zeros(6, dtype=np.float32), "b": np.zeros(1, dtype=np.float32)}


def _train(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    for i in rng.permutation(len(x)):
        error = np.float32(x[i] @ weights["w"] + weights["b"][0] - y[i])
        weights["w"] -= np.float32(0.05) * error * x[i]
        weights["b"] -= np.float32(0.05) * error
    return weights


def _evaluate(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    with np.errstate(all="ignore"):  # some tests put infinities into the weights
        error = x @ weights["w"] + weights["b"][0] - y
    return {"count": float(len(x)), "loss": float(np.sum(error.astype(np.float64) ** 2))}


@pytest.fixture
def task() -> CallableTask:
    """Linear regression by hand, in float32."""
    return CallableTask(init=_init, train=_train, evaluate=_evaluate, name="by hand")


@pytest.fixture
def federation() -> FederatedDataset:
    """Eight clients of unlike sizes; a quarter of the rows held back."""
    return make_federation()


def make_federation(num_clients: int = 8) -> FederatedDataset:
    """Clients 0 … n-1 with 10, 15, 20, … rows of one linear law."""
    rng = np.random.default_rng(0)
    law = rng.normal(size=6).astype(np.float32)
    arrays = {}
    for i in range(num_clients):
        x = rng.normal(size=(10 + 5 * (i % 8), 6)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x @ law + 0.1 * rng.normal(size=len(x))).astype(np.float32))
    return FederatedDataset.from_arrays(arrays, split=Split(test=0.25), seed=1)
