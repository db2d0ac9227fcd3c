"""The seams of tasks: those bound to data, and those that train without a framework of ours."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from hanse.core.local_work import LocalWork
from hanse.core.messages import Sums
from hanse.core.params import Params
from hanse.core.protocols import Task
from hanse.data.schema import DataSchema


@runtime_checkable
class BindableTask(Protocol):
    """A task's settings, before it knows the data. A task that knows already is a `Task` and has no `bind`."""

    def bind(self, schema: DataSchema) -> Task:
        """The task for such data.

        Raises:
          TaskError: It does not suit such data.
        """
        ...


@runtime_checkable
class PlainTask(Task, Protocol):
    """A task that trains and evaluates by itself; what the plain trainer asks for."""

    def train_plain(
        self, params: Params, x: np.ndarray, y: np.ndarray, work: LocalWork, seed: int
    ) -> tuple[Params, Sums, int]:
        """Train on a client's examples, at least one.

        Returns:
          The new parameters (those given stay as they are), additive training sums, and steps taken.
        """
        ...

    def evaluate_plain(self, params: Params, x: np.ndarray, y: np.ndarray) -> Sums:
        """Additive sums over the examples, of which there may be none (then `count` is 0)."""
        ...
