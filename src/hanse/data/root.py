"""A root set: training examples that are put aside for the server before the others are shared out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hanse.core.errors import SettingError
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples


def put_aside(dataset: Dataset, count: int, *, seed: int) -> tuple[Dataset, Examples]:
    """The data set without some of its training rows, drawn at random, and these.

    Args:
      dataset: Stays as it is.
      count: How many, ≥ 1.
      seed: The job's.

    Raises:
      SettingError: There are not that many, with one left over.
    """
    rows = len(dataset.train)
    if not 1 <= count < rows:
        raise SettingError("root", f"must be at least 1 and less than the {rows:,} training examples, got {count}")
    order = stream(seed, "root examples").permutation(rows)
    aside, rest = np.sort(order[:count]), np.sort(order[count:])
    groups = {column: labels[rest] for column, labels in dataset.groups.items()}
    return replace(dataset, train=dataset.train.take(rest), groups=groups), dataset.train.take(aside)
