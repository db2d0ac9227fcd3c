"""`FeatureNoise`: clients see the same thing through more or less noisy instruments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hanse.core.errors import DataError, SettingError
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.partition.base import Partition, Partitioner, Transform
from hanse.data.partition.checks import require_positive, require_whole
from hanse.data.partition.iid import IID


@dataclass(frozen=True, kw_only=True)
class FeatureNoise:
    """Adds Gaussian noise to the inputs when a client is read; client i of N (from 1) has variance sigma * i / N.

        x' = x + N(0, sigma * i / N)

    The noise of a client is always the same for the same seed. Values are not clipped to
    their old range. NIID-Bench's text gives sigma * i / N as the variance, as here.

    Args:
      sigma: Variance of the last client's noise, in the squared unit of the inputs, at least 0.
      clients: Number of clients, who then share the rows out as `IID` does.
      of: Another partitioner to share the rows out; give this or `clients`.

    Raises:
      SettingError: A setting is out of range, or not exactly one of `clients` and `of` is given.
      DataError: The inputs are not floating-point numbers (tokens can't be noisy).

    References:
      Li, Diao, Chen, He 2022, arXiv:2102.02079, section IV ("noise-based feature imbalance").
    """

    sigma: float
    clients: int | None = None
    of: Partitioner | None = None

    def __post_init__(self) -> None:
        require_positive("sigma", self.sigma, zero=True)
        if (self.clients is None) == (self.of is None):
            raise SettingError("partition.of", "feature noise wants either `clients` or a partitioner in `of`")
        if self.clients is not None:
            require_whole("clients", self.clients, least=1)

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Share the training rows out, and mark them to be read through noise."""
        if dataset.train.x.dtype.kind != "f":
            raise DataError(
                f"data set `{dataset.name}` has inputs of {dataset.train.x.dtype}; noise needs real numbers"
            )
        inner = self.of if self.of is not None else IID(clients=self.clients or 1)
        part = inner(dataset, seed)
        noise = _Noise(part, float(self.sigma), seed, part.transform)
        return Partition(part.clients, part.rows, part.offsets, noise, part.test_rows, part.test_offsets)


@dataclass(frozen=True, eq=False)
class _Noise:
    """The transform: a value, not a closure, so that it can be sent to another process."""

    partition: Partition
    sigma: float
    seed: int
    before: Transform | None

    def __call__(self, client: str, examples: Examples) -> Examples:
        if self.before is not None:
            examples = self.before(client, examples)
        share = (self.partition.position(client) + 1) / len(self.partition.clients)
        rng = stream(self.seed, "feature-noise", client)
        noise = rng.standard_normal(examples.x.shape, dtype=np.float32)
        noise *= math.sqrt(self.sigma * share)
        return Examples((examples.x + noise).astype(examples.x.dtype, copy=False), examples.y)
