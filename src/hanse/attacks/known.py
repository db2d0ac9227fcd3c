"""What attackers make of the updates they know."""

from __future__ import annotations

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.attacks.attack import Seen


def known_rows(seen: Seen) -> Rows:
    """The honest clients' updates; where none is known, the members' own.

    Those that hold NaN or an infinity are left out, as a server would. Where nothing is left, one row of zeros.
    """
    for updates in (seen.honest, seen.own):
        finite = [_computable(update) for update in updates if np.isfinite(update).all()]
        if finite:
            return Rows(finite)
    return Rows([np.zeros(len(seen.own[0]) if seen.own else 0)])


def mean_of(rows: Rows) -> np.ndarray:
    """`[P]` in float64."""
    return rows.combined(np.full(len(rows), 1 / len(rows)))


def deviation_of(rows: Rows) -> np.ndarray:
    """The standard deviation of each element, over n rows and not n − 1: `[P]` in float64."""
    found = np.empty(rows.dimension)
    for columns, block in rows.blocks():
        found[columns] = block.std(axis=0, dtype=np.float64)
    return found


def extremes_of(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest of each element: `[P]` in float64 both."""
    low, high = np.empty(rows.dimension), np.empty(rows.dimension)
    for columns, block in rows.blocks():
        low[columns], high[columns] = block.min(axis=0), block.max(axis=0)
    return low, high


def as_sent(vector: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A copy in the type of a member's own update; numbers beyond that type's largest become the largest."""
    if vector.dtype == own.dtype:
        return vector.copy()
    most = float(np.finfo(own.dtype).max)
    return np.asarray(np.clip(vector, -most, most).astype(own.dtype))


def multiple(factor: float, own: np.ndarray) -> np.ndarray:
    """A member's own update times a factor, as it can be sent."""
    return as_sent(np.multiply(own, factor, dtype=np.float64), own)


def _computable(update: np.ndarray) -> np.ndarray:
    return update.astype(np.float32) if update.dtype.itemsize < 4 else update
