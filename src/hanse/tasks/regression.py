"""`Regression`: one or more numbers for each example, from tables, series or images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from hanse.core.errors import SettingError, TaskError
from hanse.core.protocols import Preprocess
from hanse.data.preprocessing import preprocess_for
from hanse.data.schema import DataSchema
from hanse.tasks.expectations import NumberExpectation
from hanse.tasks.losses import Loss, Scaled, SquaredError
from hanse.tasks.measures import NumberMeasure
from hanse.tasks.metrics import number_metrics
from hanse.tasks.models.base import ModelFactory
from hanse.tasks.models.linear import Linear
from hanse.tasks.models.mlp import MLP
from hanse.tasks.torch_task import TorchTask


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Squared error on numbers; measured by rmse, mae and r2 in the targets' own units (see `number_metrics`).

    The model learns `(y − target_offset) / target_scale`, since a network starts with outputs of size one. `loss`
    is that of training and so in scaled units; all other metrics are not.

    Args:
      model: The model's settings.
      preprocess: How inputs are prepared; `"auto"` is `Standardize()` for tables and nothing for other shapes.
      loss: On scaled targets; `SquaredError()`, `AbsoluteError()`, `Huber(delta=...)` or one like them.
      target_scale: In the targets' unit, > 0; about their standard deviation. A constant that all share: it is not
        taken from anyone's data.
      target_offset: In the targets' unit; about their mean.
      dtype: Of the parameters, inputs and targets.
    """

    model: ModelFactory = field(default_factory=MLP)
    preprocess: Preprocess | Literal["auto"] | None = "auto"
    loss: Loss = field(default_factory=SquaredError)
    target_scale: float = 1.0
    target_offset: float = 0.0
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if not (self.target_scale > 0 and math.isfinite(self.target_scale)):
            raise SettingError("target_scale", f"must be more than 0, got {self.target_scale}")
        if not math.isfinite(self.target_offset):
            raise SettingError("target_offset", f"must be a finite number, got {self.target_offset}")

    def bind(self, schema: DataSchema) -> TorchTask:
        """The task for such data.

        Raises:
          TaskError: The targets are no numbers, or the model does not suit the inputs.
        """
        if schema.target != "number":
            raise TaskError(
                f"regression needs numbers as targets; they are `{schema.target}`",
                hint="use Classification for classes and NextCharacter for text",
            )
        loss = self.loss
        if (self.target_scale, self.target_offset) != (1.0, 0.0):
            loss = Scaled(loss, self.target_offset, self.target_scale)
        return TorchTask(
            name="regression",
            build=partial(self.model.build, schema),
            loss=loss,
            measure=NumberMeasure(loss, self.target_offset, self.target_scale),
            finish=number_metrics,
            objective=("rmse", "min"),
            preprocess=preprocess_for(schema, self.preprocess),
            expects=NumberExpectation(),
            target_kind="number",
            dtype=self.dtype,
        )


def linear_regression(**settings: Any) -> Regression:
    """Regression with a linear model that starts at zero; other settings as in `Regression`.

    The weights are for standardised inputs unless `preprocess=None`.
    """
    return Regression(model=Linear(), **settings)
