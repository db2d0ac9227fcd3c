"""The order in which a client sees its examples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from hanse.core.local_work import LocalWork
from hanse.core.randomness import stream


def passes(work: LocalWork, num_examples: int, seed: int) -> Iterator[np.ndarray | None]:
    """Row orders, one for each pass over the data: `[num_examples]` of int64, or None for the order as it is.

    Every pass holds every example once. There are `work.epochs` of them; with `work.steps` they never end,
    and the caller stops.
    """
    rng = stream(seed, "shuffle") if work.shuffle and work.batch_length(num_examples) < num_examples else None
    for _ in count() if work.steps is not None else range(work.epochs):
        yield None if rng is None else rng.permutation(num_examples)
