"""`Natural`: one client for each value of a column that the data brings along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import DataError, did_you_mean
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.partition.base import Partition, offsets_of
from hanse.data.partition.checks import require_whole


@dataclass(frozen=True, kw_only=True)
class Natural:
    """Writers, hospitals, engines, homes: the clients are those of the real world.

    Clients stand in the sorted order of their labels. A label that is text is the client's id;
    a number gets the column's name in front (``writer-2103``). Where the data set
    knows the same column for its official test set, each client's own test rows go with it.

    Args:
      column: Name of a column in the data set's `groups`.
      min_examples: Labels with fewer training rows are left out, with their rows; at least 1.
      max_clients: Keep at most so many clients, drawn at random by the seed; None keeps all.

    Raises:
      SettingError: A setting is out of range.
      DataError: The data set has no such column, or no label has `min_examples` rows.
    """

    column: str
    min_examples: int = 1
    max_clients: int | None = None

    def __post_init__(self) -> None:
        require_whole("min_examples", self.min_examples, least=1)
        if self.max_clients is not None:
            require_whole("max_clients", self.max_clients, least=1)

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out."""
        if self.column not in dataset.groups:
            known = list(dataset.groups)
            none = "it brings no natural clients; use another partitioner"
            raise DataError(
                f"data set `{dataset.name}` has no group column `{self.column}`",
                hint=did_you_mean(self.column, known) if known else none,
            )
        labels, inverse, counts = np.unique(dataset.groups[self.column], return_inverse=True, return_counts=True)
        keep = np.flatnonzero(counts >= self.min_examples)
        if not len(keep):
            raise DataError(
                f"data set `{dataset.name}`: no `{self.column}` has min_examples = {self.min_examples} rows; "
                f"the largest has {int(counts.max(initial=0))}"
            )
        if self.max_clients is not None and len(keep) > self.max_clients:
            rng = stream(seed, "partition", "natural", self.column)
            keep = np.sort(rng.choice(keep, self.max_clients, replace=False))
        position = np.full(len(labels), -1, dtype=np.int64)
        position[keep] = np.arange(len(keep))
        names = [self._name(label) for label in labels[keep].tolist()]
        mine = Partition.from_owners(position[inverse], len(keep), clients=names)
        theirs = self._test_owners(dataset, labels[keep])
        if theirs is None:
            return mine
        test = Partition.from_owners(theirs, len(keep), clients=names)
        return Partition(names, mine.rows, mine.offsets, None, test.rows, offsets_of(test.sizes))

    def _name(self, label: object) -> str:
        return label if isinstance(label, str) else f"{self.column}-{label}"

    def _test_owners(self, dataset: Dataset, labels: np.ndarray) -> np.ndarray | None:
        """The client position of each official test row, -1 for somebody else's; None where no row is ours."""
        theirs = dataset.test_groups.get(self.column)
        if theirs is None or not len(theirs):
            return None
        at = np.minimum(np.searchsorted(labels, theirs), len(labels) - 1)
        owners = np.where(labels[at] == theirs, at, -1)
        return owners if (owners >= 0).any() else None
