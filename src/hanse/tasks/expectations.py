"""What targets and model outputs must look like, and the sentences for when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hanse.core.errors import TaskError


class Expectation(Protocol):
    """What a task expects of targets and of outputs."""

    def check(self, y: np.ndarray, output_shape: Sequence[int]) -> None:
        """Compare targets `[n, ...]` with the shape of the model's outputs for the first few of them.

        Raises:
          TaskError: They do not fit together.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ClassExpectation:
    """Labels from 0 to C − 1 and outputs `[n, C]`; for tokens `[n, T, C]`.

    Args:
      num_classes: C, or None to take it from the model's outputs.
      tokens: Labels are `[n, T]` instead of `[n]`.
    """

    num_classes: int | None = None
    tokens: bool = False

    def check(self, y: np.ndarray, output_shape: Sequence[int]) -> None:
        """Labels first, since a wrong one explains a wrong shape too."""
        shape = list(output_shape)
        rank = 2 if self.tokens else 1
        if y.ndim != rank:
            wanted = "tokens of shape [n, T]" if self.tokens else "one label for each example, of shape [n]"
            raise TaskError(f"targets came with shape {list(y.shape)}; wanted {wanted}")
        noun = "symbols" if self.tokens else "classes"
        if self.num_classes is not None:
            check_labels(y, self.num_classes, noun)
        lead = ["n", "T"] if self.tokens else ["n"]
        if len(shape) != rank + 1:
            count = self.num_classes if self.num_classes is not None else "C"
            raise TaskError(
                f"the model's outputs have shape {_batch(shape)}; wanted [{', '.join(lead)}, {count}], "
                f"one number for each of the {count} {noun}"
            )
        if self.num_classes is None:
            check_labels(y, shape[-1], f"classes of the model (its outputs have shape {_batch(shape)})")
        elif shape[-1] != self.num_classes:
            raise TaskError(
                f"the model's outputs have shape {_batch(shape)}, {shape[-1]} for each "
                f"{'token' if self.tokens else 'example'}; the data has {self.num_classes} {noun}",
                hint=f"give the model's last layer {self.num_classes} outputs",
            )
        if self.tokens and shape[1] != y.shape[1]:
            raise TaskError(f"the model answered {shape[1]} tokens a sequence; the targets have {y.shape[1]}")


@dataclass(frozen=True)
class BinaryExpectation:
    """Labels 0 and 1, and one logit an example."""

    def check(self, y: np.ndarray, output_shape: Sequence[int]) -> None:
        """See `Expectation.check`."""
        if y.ndim != 1:
            raise TaskError(f"targets came with shape {list(y.shape)}; wanted one label for each example, of shape [n]")
        check_labels(y, 2, "classes")
        if list(output_shape[1:]) not in ([], [1]):
            raise TaskError(
                f"the model's outputs have shape {_batch(output_shape)}; wanted one logit an example, [n] or [n, 1]",
                hint='for one output a class use the loss "cross_entropy"',
            )


@dataclass(frozen=True)
class NumberExpectation:
    """Finite numbers, and as many outputs an example."""

    def check(self, y: np.ndarray, output_shape: Sequence[int]) -> None:
        """See `Expectation.check`."""
        if y.dtype.kind not in "fiub":
            raise TaskError(f"targets came as {y.dtype}; wanted numbers")
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            first = int(np.flatnonzero(~np.isfinite(y).reshape(len(y), -1).all(axis=1))[0])
            raise TaskError(f"the target of example {first} is not a finite number")
        wanted, given = int(np.prod(y.shape[1:])), int(np.prod(output_shape[1:]))
        if wanted != given:
            raise TaskError(
                f"the model's outputs have shape {_batch(output_shape)}, {given} numbers for each example; "
                f"the targets have {wanted}",
                hint=f"give the model's last layer {wanted} output{'s' if wanted != 1 else ''}",
            )


def check_labels(y: np.ndarray, num_classes: int, noun: str = "classes") -> None:
    """Refuse labels outside `0 … num_classes − 1`.

    Raises:
      TaskError: Says which label, how often and which range.
    """
    if y.dtype.kind not in "iub":
        raise TaskError(
            f"labels came as {y.dtype}; wanted whole numbers from 0 to {num_classes - 1}",
            hint="turn class names into their positions, as `np.unique(labels, return_inverse=True)[1]` does",
        )
    outside = y[(y < 0) | (y >= num_classes)] if len(y) else y
    if len(outside):
        label = int(outside.reshape(-1)[0])
        raise TaskError(
            f"label {label} is outside the range 0 to {num_classes - 1} of the {num_classes} {noun} "
            f"({outside.size} of {y.size} labels are outside)",
            hint="labels are counted from 0" if label == num_classes else None,
        )


def _batch(shape: Sequence[int]) -> str:
    """A shape with its first axis called n: `[n, 10]`."""
    return f"[{', '.join(['n', *map(str, shape[1:])])}]"
