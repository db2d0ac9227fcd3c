"""`module_task`: a task from a user's own `nn.Module`, loss and metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack, cast

from torch import Tensor, nn

from hanse.core.errors import SettingError, TaskError, did_you_mean
from hanse.core.messages import Sums
from hanse.core.protocols import Preprocess
from hanse.tasks.expectations import BinaryExpectation, ClassExpectation, Expectation, NumberExpectation
from hanse.tasks.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    Loss,
    MeanOf,
    SquaredError,
    TokenCrossEntropy,
)
from hanse.tasks.measures import ClassMeasure, LossMeasure, NumberMeasure, PerExample, TokenMeasure, WithExtra
from hanse.tasks.metrics import class_metrics, mean_metrics, number_metrics, token_metrics
from hanse.tasks.torch_task import Kind, TorchTask

LossFunction = Callable[[Tensor, Tensor], Tensor]

_LOSSES: Mapping[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "token_cross_entropy": TokenCrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
}


class Fields(TypedDict, total=False):
    """Further fields of `TorchTask` that `module_task` passes on."""

    name: str
    objective: tuple[str, Literal["max", "min"]]
    preprocess: Preprocess | None
    input_kind: Kind
    target_kind: Kind
    dtype: Literal["float32", "float64"]


def module_task(
    module: nn.Module | Callable[[], nn.Module],
    loss: str | Loss | LossFunction = "cross_entropy",
    *,
    metrics: Mapping[str, PerExample] | None = None,
    num_classes: int | None = None,
    **fields: Unpack[Fields],
) -> TorchTask:
    """A task from a module of one's own.

    Args:
      module: A class or function that makes the module without arguments, then each run's seed decides the first
        weights; or a module, then its weights are the first ones, whatever the seed. A module that is handed over is
        copied and never changed.
      loss: `"cross_entropy"`, `"token_cross_entropy"`, `"binary_cross_entropy"`, `"squared_error"`,
        `"absolute_error"`, `"huber"`, or one of `hanse.tasks.losses`: these bring their metrics along. Or a function
        `(outputs, targets)` that returns the mean over examples, such as `nn.PoissonNLLLoss()`; then `loss` is the
        only metric beside those of `metrics`.
      metrics: Name to a function `(outputs, targets)` that returns one value an example (`[n]`) or their mean.
      num_classes: Classes that the data has, to compare with the model's outputs; by default as many as it has outputs.
      fields: `name`, `objective`, `preprocess`, `input_kind`, `target_kind`, `dtype`, as in `TorchTask`.

    Raises:
      TaskError: The module can't be copied.
      SettingError: An unknown loss.

    >>> task = module_task(lambda: nn.Linear(4, 3))
    >>> task.init_params(seed=7).spec.size
    15
    """
    parts = _parts_for(_as_loss(loss), num_classes)
    build: Callable[[], nn.Module] = _CopyOf(_copied(module)) if isinstance(module, nn.Module) else module
    measure = WithExtra(parts.measure, dict(metrics)) if metrics else parts.measure
    defaults = Fields(name="custom", objective=parts.objective, target_kind=parts.target_kind)
    return TorchTask(
        build=build,
        loss=parts.loss,
        measure=measure,
        finish=parts.finish,
        expects=parts.expects,
        **(defaults | fields),
    )


@dataclass(frozen=True)
class _Parts:
    loss: Loss
    measure: Callable[[Tensor, Tensor], dict[str, Tensor]]
    finish: Callable[[Sums], dict[str, float]]
    expects: Expectation | None
    objective: tuple[str, Literal["max", "min"]]
    target_kind: Kind


@dataclass(frozen=True)
class _CopyOf:
    """Makes modules by copying one; a class rather than a closure, so that the task can be pickled."""

    module: nn.Module

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self.module)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).cpu()
    except Exception as error:  # a user's module may hold anything
        raise TaskError(
            f"the module {type(module).__name__} can't be copied: {error}",
            hint="hand over the class, or a function that makes the module, instead",
        ) from error


def _as_loss(loss: str | Loss | LossFunction) -> Loss:
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise SettingError("loss", f"`{loss}` is unknown", hint=did_you_mean(loss, _LOSSES))
        return _LOSSES[loss]()
    if not callable(loss):
        raise SettingError("loss", f"must be a name or a function of outputs and targets, got {type(loss).__name__}")
    return cast(Loss, loss) if hasattr(loss, "total") else MeanOf(loss)


def _parts_for(loss: Loss, num_classes: int | None) -> _Parts:
    """Metrics and expectations that go with a loss."""
    best_accuracy: tuple[str, Literal["max", "min"]] = ("accuracy", "max")
    match loss:
        case CrossEntropy():
            expects = ClassExpectation(num_classes=num_classes)
            return _Parts(loss, ClassMeasure(loss), class_metrics, expects, best_accuracy, "index")
        case BinaryCrossEntropy():
            measure = ClassMeasure(loss, binary=True)
            return _Parts(loss, measure, class_metrics, BinaryExpectation(), best_accuracy, "index")
        case TokenCrossEntropy():
            tokens = ClassExpectation(num_classes=num_classes, tokens=True)
            return _Parts(loss, TokenMeasure(loss), token_metrics, tokens, best_accuracy, "index")
        case SquaredError() | AbsoluteError() | Huber():
            return _Parts(loss, NumberMeasure(loss), number_metrics, NumberExpectation(), ("rmse", "min"), "number")
        case _:
            return _Parts(loss, LossMeasure(loss), mean_metrics, None, ("loss", "min"), "as_given")
