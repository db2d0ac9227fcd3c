"""The order in which a client sees its examples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hanse.core.local_work import LocalWork
from hanse.core.randomness import stream


def passes(work: LocalWork, num_examples: int, seed: int) -> Iterator[np.ndarray | None]:
    """Row orders, one for each pass over the data: `[num_examples]` of int64, or None for the order as it is.

    Every pass holds every example once. There are `work.epochs` of them, or as many as `work.steps` needs.
    """
    rng = stream(seed, "shuffle") if work.shuffle and work.batch_length(num_examples) < num_examples else None
    for _ in range(num_passes(work, num_examples)):
        yield None if rng is None else rng.permutation(num_examples)


def num_passes(work: LocalWork, num_examples: int) -> int:
    """Passes that are begun; with `work.steps` the last may be cut short."""
    if work.steps is None:
        return work.epochs
    batches = -(-num_examples // work.batch_length(num_examples))
    steps_in_a_pass = -(-batches // work.accumulate)
    return -(-work.steps // steps_in_a_pass)
