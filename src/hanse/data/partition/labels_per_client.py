"""`LabelsPerClient`: every client holds exactly k classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import DataError
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.partition.base import Partition
from hanse.data.partition.checks import require_whole, strata


@dataclass(frozen=True, kw_only=True)
class LabelsPerClient:
    """Quantity-based label imbalance, "#C = k": each client holds k classes and no others.

    Client i gets class i mod C, so that every class has a holder when there are C clients or
    more, and k - 1 others at random; the rows of a class are divided at random and evenly
    among its holders. Rows of a class without a holder (only possible with fewer clients than
    classes) are not used. Classes without rows in the data are left out.

    Args:
      clients: Number of clients, at least 1.
      labels: k, classes of each client, at least 1.
      bins: Quantile bins that stand in for classes where targets are numbers, at least 2.

    Raises:
      SettingError: A setting is out of range.
      DataError: k is more than there are classes, or a class has fewer rows than holders.

    References:
      Li, Diao, Chen, He 2022, arXiv:2102.02079, section IV ("quantity-based label imbalance").
    """

    clients: int
    labels: int
    bins: int = 10

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, least=1)
        require_whole("labels", self.labels, least=1)
        require_whole("bins", self.bins, least=2)

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out."""
        values, _ = strata(dataset, self.bins)
        present = np.unique(values)
        if self.labels > len(present):
            raise DataError(
                f"data set `{dataset.name}` has rows of {len(present)} classes; "
                f"labels = {self.labels} for each client can't be had",
                hint=f"at most {len(present)}",
            )
        rng = stream(seed, "partition", "labels-per-client")
        holds = self._choose(rng, len(present))
        order = rng.permutation(len(values))
        owners = np.full(len(values), -1, dtype=np.int64)
        for i, label in enumerate(present):
            rows, holders = order[values[order] == label], np.flatnonzero(holds[:, i])
            if len(rows) < len(holders):
                raise DataError(
                    f"data set `{dataset.name}`: {len(holders):,} clients are to hold class {label}, "
                    f"which has only {len(rows):,} rows",
                    hint="fewer clients, or fewer labels for each",
                )
            if len(holders):
                owners[rows] = holders[np.arange(len(rows)) * len(holders) // len(rows)]
        return Partition.from_owners(owners, self.clients)

    def _choose(self, rng: np.random.Generator, num_labels: int) -> np.ndarray:
        """Which client holds which class: `[clients, num_labels]` of bool, k true in each row."""
        keys = rng.random((self.clients, num_labels))
        every = np.arange(self.clients)
        keys[every, every % num_labels] = -1.0  # smallest key: always among the chosen
        chosen = np.argsort(keys, axis=1)[:, : self.labels]
        holds = np.zeros(keys.shape, dtype=bool)
        holds[every[:, None], chosen] = True
        return holds
