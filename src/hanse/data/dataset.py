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
      classes: Names of the classes, in the order of their indices; empty for numbers.
      features: Names of the input columns, for tables; empty for images and text.
      groups: Column name to one label per training row, for natural partitions (writer,
        hospital, engine, …).
      test_groups: The same for the rows of `test`, where they are known.
      description: One sentence for people.
      source: Where the data comes from, and its licence as stated there.
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
        for column, labels in self.groups.items():
            if len(labels) != len(self.train):
                raise DataError(
                    f"data set `{self.name}`: column `{column}` has {len(labels)} labels for {len(self.train)} rows"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 where the target is a number."""
        return len(self.classes)
