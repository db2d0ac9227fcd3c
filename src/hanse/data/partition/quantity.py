"""`QuantitySkew`: clients hold very unlike numbers of rows, each a uniform sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import DataError
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.partition.base import Partition
from hanse.data.partition.checks import proportional_cuts, require_positive, require_rows, require_whole

MAX_TRIES = 200
"""How often sizes are drawn anew until every client has enough."""


@dataclass(frozen=True, kw_only=True)
class QuantitySkew:
    """Sizes follow a Dirichlet distribution, labels do not differ: q ~ Dir_N(alpha), n_i = q_i * n.

    Sizes are drawn anew until every client has `min_size` rows. Every row is used.

    Args:
      clients: N, number of clients, at least 1.
      alpha: Concentration, dimensionless, above 0; the smaller, the more unequal.
      min_size: Fewest rows of a client, at least 0.

    Raises:
      SettingError: A setting is out of range.
      DataError: No draw gives every client `min_size` rows.

    References:
      Li, Diao, Chen, He 2022, "Federated learning on non-IID data silos", arXiv:2102.02079,
      section IV ("Quantity Skew").
    """

    clients: int
    alpha: float
    min_size: int = 1

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, least=1)
        require_positive("alpha", self.alpha)
        require_whole("min_size", self.min_size, least=0)

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out."""
        rng = stream(seed, "partition", "quantity")
        needed = self.clients * self.min_size
        require_rows(dataset, needed, f"{self.clients:,} clients of {self.min_size:,} rows or more")
        sizes = draw_sizes(rng, len(dataset.train), self.clients, alpha=self.alpha, min_size=self.min_size)
        return Partition.from_sizes(rng.permutation(len(dataset.train)), sizes)


def draw_sizes(rng: np.random.Generator, total: int, clients: int, *, alpha: float, min_size: int) -> np.ndarray:
    """Sizes `[clients]` that add up to `total`, from a symmetric Dirichlet, none below `min_size`.

    Raises:
      DataError: No draw of `MAX_TRIES` gives every client `min_size` rows.
    """
    for _ in range(MAX_TRIES):
        sizes = proportional_cuts(rng.dirichlet(np.full(clients, float(alpha))), total)
        if sizes.min() >= min_size:
            return sizes
    raise too_small(f"sizes of {clients:,} clients with alpha = {alpha}", min_size)


def too_small(what: str, min_size: int) -> DataError:
    """What to raise when every draw leaves some client below `min_size`."""
    return DataError(
        f"{what}: each of {MAX_TRIES} draws leaves a client with fewer than min_size = {min_size} rows",
        hint="a larger alpha, fewer clients, or a smaller min_size (0 allows clients without rows)",
    )
