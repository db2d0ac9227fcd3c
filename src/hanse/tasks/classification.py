"""`Classification`: one of several classes for each example, from tables or images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from hanse.core.errors import TaskError
from hanse.core.protocols import Preprocess
from hanse.data.preprocessing import preprocess_for
from hanse.data.schema import DataSchema
from hanse.tasks.expectations import ClassExpectation
from hanse.tasks.losses import CrossEntropy
from hanse.tasks.measures import ClassMeasure
from hanse.tasks.metrics import class_metrics
from hanse.tasks.models.base import ModelFactory
from hanse.tasks.models.linear import Linear
from hanse.tasks.models.mlp import MLP
from hanse.tasks.torch_task import TorchTask


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Cross-entropy on class labels; measured by accuracy and its kin (see `metrics.class_metrics`).

    Args:
      model: The model's settings.
      preprocess: How inputs are prepared; `"auto"` is `Standardize()` for tables and nothing for images.
      label_smoothing: Share of each label that is spread over all classes, in [0, 1); also in the reported loss.
      dtype: Of the parameters and inputs.
    """

    model: ModelFactory = field(default_factory=MLP)
    preprocess: Preprocess | Literal["auto"] | None = "auto"
    label_smoothing: float = 0.0
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        CrossEntropy(label_smoothing=self.label_smoothing)  # refuses a bad share now rather than when bound

    def bind(self, schema: DataSchema) -> TorchTask:
        """The task for such data.

        Raises:
          TaskError: The targets are no classes, or the model does not suit the inputs.
        """
        if schema.target != "classes":
            raise TaskError(
                f"classification needs class labels; the targets are `{schema.target}`",
                hint="use Regression for numbers and NextCharacter for text",
            )
        loss = CrossEntropy(label_smoothing=self.label_smoothing)
        return TorchTask(
            name="classification",
            build=partial(self.model.build, schema),
            loss=loss,
            measure=ClassMeasure(loss),
            finish=class_metrics,
            objective=("accuracy", "max"),
            preprocess=preprocess_for(schema, self.preprocess),
            expects=ClassExpectation(num_classes=schema.num_classes),
            dtype=self.dtype,
        )


def logistic_regression(**settings: Any) -> Classification:
    """Classification with a linear model that starts at zero; other settings as in `Classification`."""
    return Classification(model=Linear(), **settings)
