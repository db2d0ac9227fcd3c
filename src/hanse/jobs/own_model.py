"""`OwnModel`: a user's own `nn.Module` class, or a function that makes one, as a model factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hanse.core.errors import HanseError, TaskError
from hanse.data.schema import DataSchema

if TYPE_CHECKING:
    from torch import nn

FROM_DATA: Mapping[str, Callable[[DataSchema], object]] = {
    "schema": lambda schema: schema,
    "input_shape": lambda schema: schema.input_shape,
    "num_inputs": lambda schema: schema.num_inputs,
    "num_classes": lambda schema: schema.num_classes,
}
"""Arguments that a model may ask for by name and that the data decides."""


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """Calls `make` with the job's settings, and with what `FROM_DATA` names and the job leaves out.

    Args:
      make: A subclass of `nn.Module`, or a function that returns a module.
      settings: Its arguments from the job file.
    """

    make: Callable[..., Any]
    settings: Mapping[str, object] = field(default_factory=dict)

    def build(self, schema: DataSchema) -> nn.Module:
        """A fresh module.

        Raises:
          TaskError: `make` raised.
        """
        arguments = dict(self.settings)
        for name in inspect.signature(self.make).parameters:
            if name in FROM_DATA and name not in arguments:
                arguments[name] = FROM_DATA[name](schema)
        try:
            module: nn.Module = self.make(**arguments)
        except HanseError:
            raise
        except Exception as error:  # a user's own code may raise anything
            name = getattr(self.make, "__name__", "the model")
            raise TaskError(f"`{name}` could not be made: {type(error).__name__}: {error}") from error
        return module


def is_own_model(target: object) -> bool:
    """Whether a model named by a job is a module, or a function, rather than a factory with `build`."""
    return callable(target) and not hasattr(target, "build")
