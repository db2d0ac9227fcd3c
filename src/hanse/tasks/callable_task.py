"""`CallableTask`: a task from three functions on NumPy arrays, for anything that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hanse.core.errors import HanseError, TaskError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Sums
from hanse.core.params import Params
from hanse.core.protocols import Preprocess
from hanse.tasks.metrics import mean_metrics
from hanse.tasks.plain import refuse_gradient_work

Weights = dict[str, np.ndarray]
"""Named arrays."""


@dataclass(frozen=True, kw_only=True)
class CallableTask:
    """Trained and measured by a user's own functions; fits `PlainTask`.

    Epochs, batch size and optimiser of the local work are the functions' own business.

    Args:
      init: The weights before training; the same at each call.
      train: `(weights, x, y, seed)` to new weights of the same names and shapes. The weights given are a copy, and
        may be changed and returned. All randomness should come from `seed`.
      evaluate: `(weights, x, y)` to additive sums: `count`, and each metric summed over examples.
      name: Short name.
      objective: The metric by which models are compared, and which way is better.
      preprocess: How inputs are prepared, or None.
    """

    init: Callable[[], Mapping[str, np.ndarray]]
    train: Callable[[Weights, np.ndarray, np.ndarray, int], Mapping[str, np.ndarray]]
    evaluate: Callable[[Weights, np.ndarray, np.ndarray], Mapping[str, float]]
    name: str = "callable"
    objective: tuple[str, Literal["max", "min"]] = ("loss", "min")
    preprocess: Preprocess | None = None

    def init_params(self, seed: int) -> Params:
        """What `init` returns, whatever the seed."""
        return _params("init", self.init())

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Each sum divided by `count`."""
        return mean_metrics(sums)

    def check(self, x: np.ndarray, y: np.ndarray) -> None:
        """Evaluate the first weights on a few examples.

        Raises:
          TaskError: `evaluate` fails, or returns no `count`.
        """
        if len(x):
            try:
                self.evaluate_plain(self.init_params(0), x[:4], y[:4])
            except HanseError:
                raise
            except Exception as error:  # a user's own code may raise anything
                raise TaskError(f"`evaluate` failed: {type(error).__name__}: {error}") from error

    def train_plain(
        self, params: Params, x: np.ndarray, y: np.ndarray, work: LocalWork, seed: int
    ) -> tuple[Params, Sums, int]:
        """Call `train` once, which counts as one step, and measure the result on the same examples.

        Raises:
          TaskError: The weights came back with other names or shapes, or the work asks for gradients.
        """
        refuse_gradient_work(work, f"the task `{self.name}`")
        trained = _params("train", self.train(params.copy().arrays(), x, y, seed), params)
        return trained, self.evaluate_plain(trained, x, y), 1

    def evaluate_plain(self, params: Params, x: np.ndarray, y: np.ndarray) -> Sums:
        """What `evaluate` returns, as floats; `evaluate` is not called without examples."""
        if not len(x):
            return {"count": 0.0}
        sums = self.evaluate(params.copy().arrays(), x, y)
        if not isinstance(sums, Mapping) or "count" not in sums:
            shown = sorted(sums) if isinstance(sums, Mapping) else type(sums).__name__
            raise TaskError(f"`evaluate` returned {shown}; wanted additive sums by name, among them `count`")
        return {name: float(value) for name, value in sums.items()}


def _params(where: str, weights: Mapping[str, np.ndarray], like: Params | None = None) -> Params:
    if not isinstance(weights, Mapping) or not weights:
        raise TaskError(f"`{where}` returned {type(weights).__name__}; wanted arrays by name, at least one")
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise TaskError(f"`{where}` returned `{name}` as {array.dtype}; wanted an array of numbers")
    if like is None:
        return Params.from_arrays(arrays)
    wanted = {tensor.name: tensor.shape for tensor in like.spec.tensors}
    given = {name: array.shape for name, array in arrays.items()}
    if given != wanted:
        raise TaskError(f"`{where}` returned arrays {_shapes(given)}; the task has {_shapes(wanted)}")
    vector = np.empty(like.spec.size, dtype=like.spec.dtype)
    for name, where_in in like.spec.slices.items():
        vector[where_in] = arrays[name].reshape(-1)
    return like.with_vector(vector)


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"`{name}` {list(shape)}" for name, shape in sorted(shapes.items()))
