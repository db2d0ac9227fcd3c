"""A data set from arrays in memory: NumPy, or anything that turns into it (torch tensors, lists, series)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.encode import About, Kind
from hanse.data.readers.labels import class_indices


def dataset_from_arrays(
    x: Any,
    y: Any,
    *,
    about: About | None = None,
    kind: Kind = "auto",
    test: tuple[Any, Any] | None = None,
    groups: Mapping[str, Any] | None = None,
    test_groups: Mapping[str, Any] | None = None,
) -> Dataset:
    """A data set from inputs `[n, …]` and targets `[n]`; inputs are not copied where they need no change.

    Floating inputs become float32, and bytes (uint8, images) float32 divided by 255; other whole numbers
    (tokens) become int64. With `kind` ``auto``, whole-number and text targets are classes, others numbers.
    Class indices from 0 up stay as they are; any other labels are sorted and counted from 0.

    Args:
      x: Inputs.
      y: Targets.
      about: Name and provenance.
      kind: ``classes``, ``number`` or ``auto``.
      test: Inputs and targets of an official test set.
      groups: Column name to one label per row.
      test_groups: The same for the test rows.

    Raises:
      DataError: Lengths differ, types do not fit, or a test label does not occur in training.

    >>> dataset_from_arrays([[1.0], [2.0], [3.0]], ["no", "yes", "no"]).classes
    ('no', 'yes')
    """
    about = about or About(name="arrays")
    inputs, labels = to_array(x), to_array(y)
    tests = (to_array(test[0]), to_array(test[1])) if test is not None else None
    target: Any = kind if kind != "auto" else ("number" if labels.dtype.kind == "f" else "classes")
    classes: tuple[str, ...] = ()
    if target == "classes":
        joined = labels if tests is None else np.concatenate([labels, tests[1]])
        labels, classes = _class_labels(joined)
        tests = None if tests is None else (tests[0], labels[len(inputs) :])
        labels = labels[: len(inputs)] if tests is not None else labels
    else:
        labels = _numbers(labels)
        tests = None if tests is None else (tests[0], _numbers(tests[1]))
    return Dataset(
        name=about.name,
        train=Examples(as_inputs(inputs), labels),
        test=None if tests is None else Examples(as_inputs(tests[0]), tests[1]),
        target=target,
        classes=classes,
        groups={name: to_array(column) for name, column in (groups or {}).items()},
        test_groups={name: to_array(column) for name, column in (test_groups or {}).items()},
        description=about.description,
        source=about.source,
    )


def to_array(value: Any) -> np.ndarray:
    """A NumPy array from an array, a tensor on any device, a series or a list; text as NumPy strings.

    Raises:
      DataError: It holds Python objects or rows of unlike length.
    """
    if hasattr(value, "detach"):  # a torch tensor, told by what it can do: torch is not imported here
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"this does not make an array: {error}", hint="rows have to be of the same shape") from None
    if array.dtype.kind == "O":
        if all(isinstance(item, str) for item in array.reshape(-1)):
            return array.astype(np.str_)
        raise DataError("an array of Python objects can't be used", hint="numbers or text were wanted")
    return array


def as_inputs(x: np.ndarray) -> np.ndarray:
    """Inputs in the types that tasks expect: float32 (bytes scaled to [0, 1]), or int64 for tokens.

    Raises:
      DataError: They are neither numbers nor booleans.
    """
    if x.dtype == np.uint8:
        scaled = np.empty(x.shape, dtype=np.float32)
        np.divide(x, np.float32(255), out=scaled, dtype=np.float32)
        return scaled
    if x.dtype.kind in "fb":
        return x.astype(np.float32, copy=False)
    if x.dtype.kind in "iu":
        return x.astype(np.int64, copy=False)
    raise DataError(f"inputs are of type {x.dtype}; numbers were wanted", hint="encode text columns first")


def _class_labels(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    if labels.ndim != 1:
        raise DataError(f"class labels have shape {list(labels.shape)}; one for each row was wanted, [n]")
    if labels.dtype.kind == "f" and not (labels == np.rint(labels)).all():
        raise DataError("class labels are not whole numbers", hint='use kind = "number" for regression')
    whole = labels.dtype.kind in "iuf"
    if whole and len(labels) and labels.min() >= 0 and labels.max() < 1_000_000:
        indices = labels.astype(np.int64)
        return indices, tuple(str(i) for i in range(int(indices.max()) + 1))
    return class_indices(labels)


def _numbers(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iufb":
        raise DataError(f"targets are of type {labels.dtype}; numbers were wanted", hint='use kind = "classes"')
    return labels.astype(np.float32, copy=False)
