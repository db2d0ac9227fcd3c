"""Products with thin matrices, in the same bits everywhere."""

from __future__ import annotations

import math

import numpy as np

_BLOCK = 1 << 15


def multiply_out(left: np.ndarray, right: np.ndarray, into: np.ndarray) -> None:
    """`into = left @ right.T`, likewise in the same bits everywhere, some rows at a time."""
    step = max(1, _BLOCK // len(right))
    for start in range(0, len(left), step):
        rows = slice(start, start + step)
        np.multiply.outer(left[rows, 0], right[:, 0], out=into[rows])
        for k in range(1, left.shape[1]):
            into[rows] += np.multiply.outer(left[rows, k], right[:, k])


def product(wide: np.ndarray, thin: np.ndarray) -> np.ndarray:
    """`wide @ thin` in the same bits for any number of threads, which a matrix product of BLAS does not promise."""
    found: np.ndarray = np.einsum("ij,kj->ik", wide, np.ascontiguousarray(thin.T))
    return found


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis by Gram and Schmidt, twice over in float64; zeros for what depends on columns before."""
    rows = np.ascontiguousarray(columns.T, dtype=np.float64)
    for i, row in enumerate(rows):
        before = math.sqrt(float(np.einsum("i,i->", row, row)))
        for _ in range(2):
            for other in rows[:i]:
                row -= float(np.einsum("i,i->", other, row)) * other
        after = math.sqrt(float(np.einsum("i,i->", row, row)))
        row *= 1 / after if after > 1e-6 * before else 0.0
    return np.ascontiguousarray(rows.T, dtype=columns.dtype)
