"""Matrices over the field of 2^31 - 1 elements, by exact products in float64."""

from __future__ import annotations

import numpy as np

PRIME = (1 << 31) - 1

_COLUMNS = 1 << 15  # at a time: bounded memory


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left @ right` modulo PRIME, `int64[a, c]` from `int64[a, b]` and `int64[b, c]` with entries in [0, PRIME).

    Each factor is cut into halves of 16 and 15 bits; products of halves are below 2^32, and sums of up to 2^20 of them
    are exact in float64.

    >>> product(np.array([[PRIME - 1, 2]]), np.array([[PRIME - 1], [3]])).tolist()
    [[7]]
    """
    low, high = (left & 0xFFFF).astype(np.float64), (left >> 16).astype(np.float64)
    found = np.empty((left.shape[0], right.shape[1]), dtype=np.int64)
    for start in range(0, right.shape[1], _COLUMNS):
        piece = right[:, start : start + _COLUMNS]
        lower, upper = (piece & 0xFFFF).astype(np.float64), (piece >> 16).astype(np.float64)
        middle = (low @ upper + high @ lower).astype(np.int64) % PRIME
        highest = (high @ upper).astype(np.int64) % PRIME  # times 2^32, which is 2 here
        lowest = (low @ lower).astype(np.int64) % PRIME
        found[:, start : start + _COLUMNS] = (lowest + (middle << 16) + 2 * highest) % PRIME
    return found


def lagrange(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Row i gives the value at `at[i]` of the polynomial through values at `points`: `int64[a, p]`.

    >>> lagrange(np.array([1, 2]), np.array([3])).tolist()
    [[2147483646, 2]]
    """
    rows = np.empty((len(at), len(points)), dtype=np.int64)
    for j, point in enumerate(points.tolist()):
        numerator = np.ones(len(at), dtype=np.int64)
        denominator = 1
        for m, other in enumerate(points.tolist()):
            if m != j:
                numerator = numerator * ((at - other) % PRIME) % PRIME
                denominator = denominator * (point - other) % PRIME
        rows[:, j] = numerator * pow(denominator, -1, PRIME) % PRIME
    return rows
