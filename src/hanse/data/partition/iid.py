"""`IID`: every client holds a uniform random sample, all of the same size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.partition.base import Partition
from hanse.data.partition.checks import require_rows, require_whole


@dataclass(frozen=True, kw_only=True)
class IID:
    """Shuffles the rows and deals them out evenly: sizes differ by at most one.

    Args:
      clients: Number of clients, at least 1.
      examples_per_client: Rows of each client. None shares out every row once. A number lets a
        population be larger than the data set: rows are dealt from as many shuffles as it
        takes, so several clients may hold the same row, though no client holds one twice.

    Raises:
      SettingError: A setting is out of range.
      DataError: There are more clients than rows, or fewer rows than one client needs.

    References:
      McMahan et al. 2017, arXiv:1602.05629, section 3 ("IID").
    """

    clients: int
    examples_per_client: int | None = None

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, least=1)
        if self.examples_per_client is not None:
            require_whole("examples_per_client", self.examples_per_client, least=1)

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out."""
        rng, count = stream(seed, "partition", "iid"), len(dataset.train)
        if self.examples_per_client is None:
            require_rows(dataset, self.clients, f"one row for each of {self.clients:,} clients")
            sizes = np.full(self.clients, count // self.clients, dtype=np.int64)
            sizes[: count % self.clients] += 1
            return Partition.from_sizes(rng.permutation(count), sizes)
        size = self.examples_per_client
        require_rows(dataset, size, f"a client of {size:,} rows")
        # whole clients only from each shuffle: nobody straddles two and meets a row again
        per_shuffle = count // size
        shuffles = -(-self.clients // per_shuffle)
        rows = np.concatenate([rng.permutation(count)[: per_shuffle * size] for _ in range(shuffles)])
        return Partition.from_sizes(rows[: self.clients * size], np.full(self.clients, size, dtype=np.int64))
