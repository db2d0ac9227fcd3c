"""Small stand-ins that need no machine-learning framework: a task, a federation, updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hanse.core.messages import Update
from hanse.core.params import Params
from hanse.data.federated import ClientData, FederatedDataset
from hanse.data.split import Split
from hanse.tasks.callable_task import CallableTask, Weights

Values = Sequence[float] | np.ndarray


def make_params(values: Values, *, name: str = "w") -> Params:
    """One float32 tensor called `name`.

    >>> make_params([1.0, 2.0]).numpy()
    array([1., 2.], dtype=float32)
    """
    return Params.from_arrays({name: np.asarray(values, dtype=np.float32)})


def make_update(
    delta: Values | Params,
    *,
    client: str = "site-0",
    round_number: int = 1,
    num_examples: int = 1,
    num_steps: int = 1,
    extras: Mapping[str, Values] | None = None,
) -> Update:
    """An update as a trainer would make it.

    Args:
      delta: `Params`, or the numbers of one tensor ``w``.
      client: Who.
      round_number: Which round, from 1.
      num_examples: Training examples, ≥ 1.
      num_steps: Optimiser steps.
      extras: Further vectors by name, each of one tensor ``w``.

    >>> make_update([0.5, -1.0], num_examples=3).num_examples
    3
    """
    return Update(
        client=client,
        round=round_number,
        delta=delta if isinstance(delta, Params) else make_params(delta),
        num_examples=num_examples,
        num_steps=num_steps,
        extras={name: make_params(values) for name, values in (extras or {}).items()},
        sums={"count": float(num_examples), "loss": float(num_examples)},
    )


def linear_task(num_inputs: int = 3, *, lr: float = 0.05) -> CallableTask:
    """Least squares on a line through NumPy: one pass of single-example SGD, in float32.

    Convex, fast, deterministic for a seed, and it needs no framework.

    Args:
      num_inputs: Columns of `x`, ≥ 1.
      lr: Learning rate, > 0.

    >>> linear_task(2).init_params(seed=0).spec.size
    3
    """
    return CallableTask(
        init=_Zeros(num_inputs), train=_SgdPass(np.float32(lr)), evaluate=_squared_error, name="linear fake"
    )


def tiny_federation(
    num_clients: int = 3, *, num_inputs: int = 3, rows: int = 8, test: float = 0.25, seed: int = 0
) -> FederatedDataset:
    """Clients ``site-0``, ``site-1``, … with `rows`, `rows + 1`, … examples of one linear law.

    Args:
      num_clients: Clients, ≥ 1.
      num_inputs: Columns of `x`.
      rows: Rows of the first client, ≥ 1.
      test: Fraction that each client keeps back.
      seed: Of the data.

    >>> tiny_federation(2).clients
    ['site-0', 'site-1']
    """
    rng = np.random.default_rng(seed)
    law = rng.normal(size=num_inputs)
    arrays = {}
    for i in range(num_clients):
        x = rng.normal(size=(rows + i, num_inputs))
        arrays[f"site-{i}"] = (x.astype(np.float32), (x @ law + 0.1 * rng.normal(size=rows + i)).astype(np.float32))
    return FederatedDataset.from_arrays(arrays, split=Split(test=test), seed=seed)


def with_empty_client(federation: FederatedDataset, client: str = "empty") -> FederatedDataset:
    """The same federation and one more client, who holds nothing.

    >>> with_empty_client(tiny_federation(2)).num_examples("empty")
    0
    """
    everyone = {name: federation.client(name) for name in federation.clients}
    first = next(iter(everyone.values()))
    nothing = first.train.take(slice(0, 0))
    everyone[client] = ClientData(client, nothing, nothing, nothing)
    return FederatedDataset.from_clients(everyone)


# classes rather than closures, so that the task can be sent to another process


class _Zeros:
    def __init__(self, num_inputs: int) -> None:
        self.num_inputs = num_inputs

    def __call__(self) -> Weights:
        return {"w": np.zeros(self.num_inputs, dtype=np.float32), "b": np.zeros(1, dtype=np.float32)}


class _SgdPass:
    def __init__(self, lr: np.float32) -> None:
        self.lr = lr

    def __call__(self, weights: Weights, x: np.ndarray, y: np.ndarray, seed: int) -> Weights:
        for i in np.random.default_rng(seed).permutation(len(x)):
            step = self.lr * np.float32(x[i] @ weights["w"] + weights["b"][0] - y[i])
            weights["w"] -= step * x[i]
            weights["b"] -= step
        return weights


def _squared_error(weights: Weights, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    error = (x @ weights["w"] + weights["b"][0] - y).astype(np.float64)
    return {"count": float(len(x)), "loss": float(np.sum(error**2))}
