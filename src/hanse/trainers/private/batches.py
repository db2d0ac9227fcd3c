"""Batches by Poisson sampling: each example by itself is in it, or is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hanse.core.randomness import stream


def poisson_batches(private_key: int, num_examples: int, batch: int, *, steps: int) -> Iterator[np.ndarray]:
    """The rows of each step's batch, in their order, `[m]` of int64 with m from 0 to `num_examples`.

    Every example is in every batch with probability q = min(1, batch / num_examples), independently of all others and
    of all other steps.

    Args:
      private_key: 128 bits; the same key gives the same batches.
      num_examples: n ≥ 1.
      batch: B ≥ 1, examples of a batch on average where n is larger.
      steps: How many batches.
    """
    rng = stream(private_key, "example batches")
    rate = min(1.0, batch / num_examples)
    for _ in range(steps):
        if rate == 1.0:
            yield np.arange(num_examples)
        else:
            # in float64, whose steps of 2**-53 leave no rate worth speaking of wrong
            yield np.flatnonzero(rng.random(num_examples) < rate)
