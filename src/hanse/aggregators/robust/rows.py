"""`Rows`: a cohort's updates side by side, looked at block by block; the updates themselves are never copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from hanse.aggregators.mean import add_scaled

_BLOCK_BYTES = 4 << 20  # of a block of columns: small beside the updates, large beside the cost of a call


class Rows:
    """n vectors of P numbers each, or m fixed mixtures of them.

    A mixture is a matrix: row i of `Rows(vectors).mixed(M)` is `Σ_j M[i, j] vectors[j]`. Nothing of size n·P is made
    for it, as all that rules ask for is computed from blocks of columns, or follows from the vectors' inner products.

    Args:
      vectors: n arrays `[P]` of one floating type, finite; only read.
      mix: `[m, n]` in float64; None for the vectors as they are.
    """

    def __init__(self, vectors: Sequence[np.ndarray], mix: np.ndarray | None = None) -> None:
        self._vectors = tuple(vectors)
        self._mix = mix

    def __len__(self) -> int:
        return len(self._vectors) if self._mix is None else len(self._mix)

    @property
    def dimension(self) -> int:
        """P."""
        return len(self._vectors[0])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Type of the vectors' elements."""
        return np.dtype(self._vectors[0].dtype)

    def mixed(self, mix: np.ndarray) -> Rows:
        """Mixtures of these rows.

        Args:
          mix: `[m, n]`, n being the number of these rows; the sum of each row is 1.
        """
        return Rows(self._vectors, mix if self._mix is None else mix @ self._mix)

    def blocks(self, width: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """The columns from left to right, some at a time: where they stand, and a copy `[m, w]` of them.

        Args:
          width: Columns of a block; None for what fits well.
        """
        most = width or max(64, _BLOCK_BYTES // (len(self._vectors) * self.dtype.itemsize))
        for start in range(0, self.dimension, most):
            columns = slice(start, min(start + most, self.dimension))
            yield columns, self.block(columns)

    def block(self, columns: slice, out: np.ndarray | None = None) -> np.ndarray:
        """A copy `[m, w]` of some columns. Threads may ask for theirs at the same time.

        Args:
          columns: From where to where, w of them.
          out: `[m, w]`, filled and returned: of any strides, of the rows' type or a wider one; None for a new array.
        """
        if self._mix is None:
            parts: Iterable[np.ndarray] = (vector[columns] for vector in self._vectors)
        else:
            mixed = np.asarray(self._mix.astype(self.dtype) @ Rows(self._vectors).block(columns))
            if out is None:
                return mixed
            parts = mixed
        found = np.empty((len(self), columns.stop - columns.start), dtype=self.dtype) if out is None else out
        for place, part in zip(found, parts, strict=True):
            place[...] = part
        return found

    @cached_property
    def gram(self) -> np.ndarray:
        """`[m, m]` in float64: inner products of all pairs, each block's in the vectors' own type."""
        if self._mix is not None:
            return np.asarray(self._mix @ Rows(self._vectors).gram @ self._mix.T)
        total = np.zeros((len(self), len(self)))
        for _, block in self.blocks():
            total += block @ block.T
        return total

    @cached_property
    def squared_distances(self) -> np.ndarray:
        """`[m, m]` in float64, ≥ 0: `‖row_i − row_j‖²`; zeros on the diagonal.

        From inner products of the rows minus their mean: what all rows share would cancel, and take the digits along.
        """
        if self._mix is not None:
            between = self._mix @ Rows(self._vectors).squared_distances @ self._mix.T
            own = np.diag(between)  # for differences u of weights, whose sum is 0: ‖Σ u_k row_k‖² = −½ Σ u_k u_l d²_kl
            return _clean(between - (own[:, None] + own[None, :]) / 2)
        total = np.zeros((len(self), len(self)))
        for _, block in self.blocks():
            block -= block.mean(axis=0)
            total += block @ block.T
        own = np.diag(total)
        return _clean(own[:, None] + own[None, :] - 2 * total)

    @cached_property
    def norms(self) -> np.ndarray:
        """`[m]` in float64: the rows' L2 norms."""
        if self._mix is not None:
            return np.sqrt(np.maximum(np.diag(self.gram), 0.0))
        return np.array([_norm(vector) for vector in self._vectors])

    def combined(self, weights: np.ndarray) -> np.ndarray:
        """`Σ_i weights[i] row_i`, `[P]` in float64.

        Args:
          weights: `[m]`.
        """
        by_vector = np.asarray(weights, dtype=np.float64) if self._mix is None else weights @ self._mix
        total = np.zeros(self.dimension)
        for i in np.flatnonzero(by_vector):
            add_scaled(total, self._vectors[i], float(by_vector[i]))
        return total

    def products_with(self, vector: np.ndarray) -> np.ndarray:
        """`[m]` in float64: each row's inner product with a vector `[P]`."""
        found = np.array([_dot(row, vector) for row in self._vectors])
        return found if self._mix is None else np.asarray(self._mix @ found)


_CHUNK = 1 << 16  # elements; a chunk in float64 stays in the second-level cache


def _dot(left: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(left), _CHUNK):
        part = slice(start, start + _CHUNK)
        total += float(np.dot(left[part].astype(np.float64), right[part].astype(np.float64)))
    return total


def _norm(vector: np.ndarray) -> float:
    return float(np.sqrt(_dot(vector, vector)))


def _clean(squared: np.ndarray) -> np.ndarray:
    found = np.maximum(squared, 0.0)
    found = np.asarray((found + found.T) / 2)
    np.fill_diagonal(found, 0.0)
    return found
