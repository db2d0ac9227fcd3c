"""`Dataset`: one data set before anyone shares it out, with what is known about its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.examples import Examples

TargetKind = Literal["classes", "number", "next_token"]
"""What `y` holds: class indices (int64, 0-based), real numbers (float32), or token indices."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set: training rows, perhaps an official test set, and its description.

    Args:
      name: Short name, as in the job file.
      train: The rows that a partitioner shares out among clients.
      test: The official test set, held centrally; None where there is none.
      target: What the targets are.
      classes: Names of the classes, in the order of their indices; empty for numbers. Left
        out for classes, they are called ``0``, ``1``, … up to the largest index. For
        tokens they are the symbols.
      features: Names of the input columns, for tables; empty for images and text.
      groups: Column name to one label per training row, for natural partitions (writer,
        hospital, engine, …).
      test_groups: The same for the rows of `test`, where they are known.
      description: One sentence for people.
      source: Where the data comes from, and its licence as stated there.

    Raises:
      DataError: Labels are outside the range of the classes or not whole, inputs of training and
        test rows differ in shape, or a group column has another length than the rows.
    """

    name: str
    train: Examples
    test: Examples | None = None
    target: TargetKind = "classes"
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    test_groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_groups(self.groups, len(self.train), "training")
        self._check_groups(self.test_groups, 0 if self.test is None else len(self.test), "test")
        if self.target == "number":
            return
        if not self.classes:
            object.__setattr__(self, "classes", self._numbered())
        self._check_labels(self.train.y, "training")
        if self.test is not None:
            self._check_labels(self.test.y, "test")

    @property
    def num_classes(self) -> int:
        """Number of classes, or of symbols for tokens; 0 where the target is a number."""
        return len(self.classes)

    def _check_shapes(self) -> None:
        if self.test is not None and self.test.x.shape[1:] != self.train.x.shape[1:]:
            raise DataError(
                f"data set `{self.name}`: a test input has shape {list(self.test.x.shape[1:])}, "
                f"a training input {list(self.train.x.shape[1:])}"
            )
        columns = self.train.x.shape[1] if self.train.x.ndim == 2 else None
        if self.features and columns is not None and len(self.features) != columns:
            raise DataError(f"data set `{self.name}`: {len(self.features)} feature names for {columns} columns")

    def _check_groups(self, groups: Mapping[str, np.ndarray], rows: int, part: str) -> None:
        for column, labels in groups.items():
            if len(labels) != rows:
                raise DataError(
                    f"data set `{self.name}`: column `{column}` has {len(labels)} labels for {rows} {part} rows"
                )

    def _numbered(self) -> tuple[str, ...]:
        parts = [p.y for p in (self.train, self.test) if p is not None and p.y.size and p.y.dtype.kind in "iu"]
        largest = max((int(y.max()) for y in parts), default=-1)
        if largest >= 1_000_000:
            raise DataError(f"data set `{self.name}`: label {largest} would make more than a million classes")
        return tuple(str(i) for i in range(largest + 1))

    def _check_labels(self, y: np.ndarray, part: str) -> None:
        if y.dtype.kind not in "iu":
            raise DataError(
                f"data set `{self.name}`: {part} targets are of type {y.dtype}; class indices are whole numbers",
                hint='give class indices (int64, from 0), or target = "number" for regression',
            )
        if not y.size or (y.min() >= 0 and y.max() < self.num_classes):
            return
        row = tuple(int(i) for i in np.argwhere((y < 0) | (y >= self.num_classes))[0])
        raise DataError(
            f"data set `{self.name}`: label {int(y[row])} of {part} row {row[0]} is outside the range "
            f"0 to {self.num_classes - 1} of its {self.num_classes} classes",
            hint="class indices count from 0",
        )
