"""`NextCharacter`: the next symbol at each position of a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from hanse.core.errors import TaskError
from hanse.data.schema import DataSchema
from hanse.tasks.expectations import ClassExpectation
from hanse.tasks.losses import TokenCrossEntropy
from hanse.tasks.measures import TokenMeasure
from hanse.tasks.metrics import token_metrics
from hanse.tasks.models.base import ModelFactory
from hanse.tasks.models.char_lstm import CharLSTM
from hanse.tasks.torch_task import TorchTask


@dataclass(frozen=True, kw_only=True)
class NextCharacter:
    """Cross-entropy on the next token, from tokens `[n, T]` to tokens `[n, T]`; `loss` and `accuracy` are per token.

    Args:
      model: The model's settings; its outputs are `[n, T, V]` for V symbols.
      dtype: Of the parameters.
    """

    model: ModelFactory = field(default_factory=CharLSTM)
    dtype: Literal["float32", "float64"] = "float32"

    def bind(self, schema: DataSchema) -> TorchTask:
        """The task for such data.

        Raises:
          TaskError: The targets are no tokens.
        """
        if schema.target != "next_token":
            raise TaskError(
                f"next-character prediction needs tokens as targets; they are `{schema.target}`",
                hint="use Classification for classes and Regression for numbers",
            )
        loss = TokenCrossEntropy()
        return TorchTask(
            name="next_character",
            build=partial(self.model.build, schema),
            loss=loss,
            measure=TokenMeasure(loss),
            finish=token_metrics,
            objective=("accuracy", "max"),
            expects=ClassExpectation(num_classes=schema.num_classes, tokens=True),
            input_kind="index",
            dtype=self.dtype,
        )
