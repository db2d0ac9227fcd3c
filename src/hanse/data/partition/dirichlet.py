"""`Dirichlet`: label skew, and with it quantity skew, from Dirichlet distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import SettingError
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.partition.base import Partition
from hanse.data.partition.checks import proportional_cuts, require_positive, require_rows, require_whole, strata
from hanse.data.partition.quantity import MAX_TRIES, draw_sizes, too_small


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """Clients differ in their mix of classes, the more the smaller `alpha` is. Every row is used.

    By default, as in NIID-Bench (Li et al. 2022): the rows of each class k are divided among the N
    clients in proportions p_k ~ Dir_N(alpha), so sizes differ too. With `equal_sizes` or
    `quantity_alpha`, as in Hsu et al. 2019: client i has a fixed number of rows n_i and draws its own
    mix q_i ~ Dir(alpha * c), c being the proportions of the C classes in the data times C (so equal
    classes give Dir_C(alpha)); n_i = n / N, or n_i from Dir_N(quantity_alpha). Rows are drawn without
    replacement, so as a class runs out, later clients take more of what is left. Hsu et al. write
    Dir(alpha * p) with p adding up to one: their alpha is C times this one.

    Draws are repeated until every client has `min_size` rows. Numeric targets are first put
    into `bins` quantile bins, which stand in for classes.

    Args:
      clients: N, number of clients, at least 1.
      alpha: Concentration of the class mix, dimensionless, above 0.
      min_size: Fewest rows of a client, at least 0; 0 allows empty clients.
      equal_sizes: All clients hold the same number of rows, give or take one.
      quantity_alpha: Concentration of the clients' sizes, dimensionless, above 0; None for none.
      bins: Quantile bins for numeric targets, at least 2.

    Raises:
      SettingError: A setting is out of range, or `equal_sizes` meets `quantity_alpha`.
      DataError: No draw gives every client `min_size` rows, or rows have no single label.

    References:
      Li, Diao, Chen, He 2022, arXiv:2102.02079, section IV ("distribution-based label imbalance").
      Hsu, Qi, Brown 2019, arXiv:1909.06335, section 2.
    """

    clients: int
    alpha: float
    min_size: int = 1
    equal_sizes: bool = False
    quantity_alpha: float | None = None
    bins: int = 10

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, least=1)
        require_positive("alpha", self.alpha)
        require_whole("min_size", self.min_size, least=0)
        require_whole("bins", self.bins, least=2)
        if self.quantity_alpha is not None:
            require_positive("quantity_alpha", self.quantity_alpha)
            if self.equal_sizes:
                raise SettingError("partition.equal_sizes", "sizes can't be equal and follow `quantity_alpha` at once")

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out."""
        present, labels = np.unique(strata(dataset, self.bins)[0], return_inverse=True)
        num_labels = len(present)
        rng = stream(seed, "partition", "dirichlet")
        needed = max(1, self.clients * self.min_size)
        require_rows(dataset, needed, f"{self.clients:,} clients of {self.min_size:,} rows or more")
        if not (self.equal_sizes or self.quantity_alpha is not None):
            return self._by_class(rng, labels, num_labels)
        sizes = self._sizes(rng, len(labels))
        totals = np.bincount(labels, minlength=num_labels)
        mixes = rng.dirichlet(float(self.alpha) * num_labels * totals / len(labels), size=self.clients)
        return _deal(rng, labels, _counts(rng, sizes, mixes, totals))

    def _by_class(self, rng: np.random.Generator, labels: np.ndarray, num_labels: int) -> Partition:
        totals = np.bincount(labels, minlength=num_labels)
        concentration = np.full(self.clients, float(self.alpha))
        for _ in range(MAX_TRIES):
            counts = np.stack([proportional_cuts(rng.dirichlet(concentration), int(total)) for total in totals], axis=1)
            if counts.sum(axis=1).min() >= self.min_size:
                return _deal(rng, labels, counts)
        raise too_small(f"{self.clients:,} clients with alpha = {self.alpha}", self.min_size)

    def _sizes(self, rng: np.random.Generator, total: int) -> np.ndarray:
        if self.quantity_alpha is not None:
            return draw_sizes(rng, total, self.clients, alpha=self.quantity_alpha, min_size=self.min_size)
        sizes = np.full(self.clients, total // self.clients, dtype=np.int64)
        sizes[: total % self.clients] += 1
        return sizes


def _counts(rng: np.random.Generator, sizes: np.ndarray, mixes: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Rows of each class for each client, `[N, C]`: row sums are `sizes`, column sums at most `totals`.

    All clients draw at once from their mixes and are served in order; who meets an exhausted class
    draws again among the others. Each pass that does not finish exhausts a class, so there are at
    most C + 1 passes.
    """
    counts = np.zeros(mixes.shape, dtype=np.int64)
    left = totals.astype(np.int64)
    missing = sizes.astype(np.int64)
    while missing.any():
        who = np.flatnonzero(missing)
        open_mix = np.where(left > 0, mixes[who], 0.0)
        weight = open_mix.sum(axis=1, keepdims=True)
        # a client whose whole mix is used up takes the others in the proportions that are left
        open_mix = np.where(weight > 1e-12, open_mix / np.maximum(weight, 1e-12), left / left.sum())
        wanted = rng.multinomial(missing[who], open_mix / open_mix.sum(axis=1, keepdims=True))
        before = np.cumsum(wanted, axis=0) - wanted
        served = np.clip(left - before, 0, wanted)
        counts[who] += served
        left = left - served.sum(axis=0)
        missing[who] -= served.sum(axis=1)
    return counts


def _deal(rng: np.random.Generator, labels: np.ndarray, counts: np.ndarray) -> Partition:
    """Random rows of each class to the clients, as many as `counts[client, class]` says."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    per_label = np.repeat(np.tile(np.arange(counts.shape[0]), counts.shape[1]), counts.T.reshape(-1))
    # every row of every class is dealt, so the owners lie along the rows sorted by class
    owners = np.empty(len(labels), dtype=np.int64)
    owners[order] = per_label
    return Partition.from_owners(owners, counts.shape[0])
