"""`Shards`: rows sorted by label, cut into shards, a few shards to each client."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.partition.base import Partition
from hanse.data.partition.checks import require_labels, require_rows, require_whole


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The pathological non-IID split of McMahan et al.: most clients see few classes.

    Rows are sorted by label (in random order within one), cut into `clients * shards_per_client`
    shards whose sizes differ by at most one, and every client gets `shards_per_client` of them
    at random. Every row is used. Numbers are sorted by value.

    Args:
      clients: Number of clients, at least 1.
      shards_per_client: Shards that each client gets, at least 1; the paper has 2.

    Raises:
      SettingError: A setting is out of range.
      DataError: There are fewer rows than shards, or no single label a row.

    References:
      McMahan et al. 2017, arXiv:1602.05629, section 3 ("Pathological Non-IID").
    """

    clients: int
    shards_per_client: int = 2

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, least=1)
        require_whole("shards_per_client", self.shards_per_client, least=1)

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out."""
        rng, count = stream(seed, "partition", "shards"), len(dataset.train)
        num_shards = self.clients * self.shards_per_client
        require_rows(dataset, num_shards, f"one row for each of {num_shards:,} shards")
        require_labels(dataset)
        order = rng.permutation(count)
        order = order[np.argsort(dataset.train.y[order], kind="stable")]
        owners_of_shards = rng.permutation(num_shards) // self.shards_per_client
        owners = np.empty(count, dtype=np.int64)
        owners[order] = owners_of_shards[np.arange(count) * num_shards // count]
        return Partition.from_owners(owners, self.clients)
