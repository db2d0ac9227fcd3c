"""`BindableTask`: a task's settings, before it knows the data."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hanse.core.protocols import Task
from hanse.data.schema import DataSchema


@runtime_checkable
class BindableTask(Protocol):
    """Settings that become a task for data of a given shape. What is a `Task` already has no `bind`."""

    def bind(self, schema: DataSchema) -> Task:
        """The task for such data.

        Raises:
          TaskError: It does not suit such data.
        """
        ...
