"""`sketched`: rows as a few thousand numbers each, whose inner products are about those of the rows."""

from __future__ import annotations

import numpy as np

from hanse.aggregators.robust.rows import Rows


def sketched(rows: Rows, *, size: int, key: int) -> np.ndarray:
    """`[n, s]` in float64: each row's elements, with random signs, added up in s places; the rows themselves if P ≤ s.

        sketch_i[h(j)] += σ(j) x_i[j]        σ(j) = ±1 at random

    Columns are taken in stretches of s, and each stretch is turned round by a random number of places, so that two
    columns of one stretch never meet, and two of different stretches do with probability 1/s. As in the count sketch,
    inner products are right on average, with a variance of at most `(‖x‖² ‖y‖² + ⟨x, y⟩²) / s`: a cosine is off by
    about 1/√s. It is linear, so sketches of updates add up to that of their sum.

    Args:
      rows: n rows of P numbers.
      size: s ≥ 1.
      key: In [0, 2⁶³): what is random follows from it alone. Whoever knows it can hide likeness from the sketch.

    References:
      Charikar, Chen, Farach-Colton 2002, "Finding frequent items in data streams", ICALP: the count sketch, whose
      places are independent for each column.
    """
    total = np.zeros((len(rows), min(size, rows.dimension)))
    width = None if rows.dimension <= size else max(1, (1 << 20) // (size * len(rows))) * size
    random = np.random.Philox(key=key)
    for columns, block in rows.blocks(width):
        if rows.dimension <= size:
            total[:, columns] = block
            continue
        for start in range(0, columns.stop - columns.start, size):
            part = block[:, start : start + size]
            shift, signs = _drawn(random, size)
            part = part * signs[: part.shape[1]]
            before = min(size - shift, part.shape[1])
            total[:, shift : shift + before] += part[:, :before]
            total[:, : part.shape[1] - before] += part[:, before:]
    return total


def _drawn(random: np.random.Philox, size: int) -> tuple[int, np.ndarray]:
    """How far a stretch is turned, and its signs, from the generator's bits as they come: the same in all versions."""
    bits = random.random_raw(1 + -(-size // 64)).astype("<u8")
    signs = np.unpackbits(bits[1:].view(np.uint8))[:size].astype(np.int8)
    return int(bits[0] % size), 1 - 2 * signs
