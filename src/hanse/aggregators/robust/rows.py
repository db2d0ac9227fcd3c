"""`Rows`: a cohort's updates side by side, looked at block by block; the updates themselves are never copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from hanse.aggregators.mean import add_scaled

_BLOCK_BYTES = 4 << 20  # of a block of columns: small beside the updates, large beside the cost of a call
_STRETCH = 1 << 13  # elements of one vector at a time: in float64 they stay in the first-level cache; no threads start
_PLAIN = 1e12  # norms from 1 / this to this are squared as they are; float32 ends at 1e38
_LARGEST = 1e300  # of a product: sums of some of them stay finite


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
            wide = Rows(self._vectors).block(columns).astype(_working(self.dtype), copy=False)
            mixed = np.asarray(self._mix.astype(wide.dtype) @ wide)
            if out is None:
                return mixed.astype(self.dtype, copy=False)
            parts = mixed
        found = np.empty((len(self), columns.stop - columns.start), dtype=self.dtype) if out is None else out
        for place, part in zip(found, parts, strict=True):
            place[...] = part
        return found

    @cached_property
    def gram(self) -> np.ndarray:
        """`[m, m]` in float64: inner products of all pairs, each block's in the vectors' own type.

        Each is good to about 1e-6 of the product of the two norms (of float32), whatever the others are; none
        overflows, for a row whose norm is out of the ordinary is scaled by a power of two.
        """
        return self._products(None, 0.0)

    @cached_property
    def centred_gram(self) -> np.ndarray:
        """`[m, m]` in float64: inner products of the rows minus one vector that lies among them.

        What all rows share would take the digits along in differences of products. The vector is the mean of those
        whose norm is at most twice the median, so that a few that are far away do not take the digits either.
        """
        if self._mix is not None:  # of each mixture the sum of weights is 1, so the same vector goes off
            return np.asarray(self._mix @ Rows(self._vectors).centred_gram @ self._mix.T)
        middling = self.norms <= 2 * np.median(self.norms)
        weights = (middling / middling.sum()).astype(_working(self.dtype))
        return self._products(lambda _, block: weights @ block, float(self.norms[middling].max()))

    def gram_about(self, centre: np.ndarray) -> np.ndarray:
        """`[m, m]` in float64: inner products of the rows minus a given vector `[P]`."""
        base = Rows(self._vectors)
        found = base._products(lambda columns, _: centre[columns], _norm(centre))
        return found if self._mix is None else np.asarray(self._mix @ found @ self._mix.T)

    def _products(self, centre: Callable[[slice, np.ndarray], np.ndarray] | None, size: float) -> np.ndarray:
        if self._mix is not None:
            return np.asarray(self._mix @ Rows(self._vectors)._products(centre, size) @ self._mix.T)
        working = _working(self.dtype)
        scales = _scales(np.maximum(self.norms, size), working)
        plain, total = bool((scales == 1).all()), np.zeros((len(self), len(self)))
        factors = scales.astype(working)[:, None]
        for columns, block in self.blocks():
            block = block.astype(factors.dtype, copy=False)
            middle = None if centre is None else centre(columns, block).astype(factors.dtype)
            if not plain:
                block *= factors
            if middle is not None:
                block -= middle if plain else factors * middle
            total += block @ block.T
        with np.errstate(over="ignore"):
            return np.asarray(np.clip(total / scales[:, None] / scales[None, :], -_LARGEST, _LARGEST))

    @cached_property
    def squared_distances(self) -> np.ndarray:
        """`[m, m]` in float64, ≥ 0: `‖row_i − row_j‖²`; zeros on the diagonal.

        From `centred_gram`: good to about 1e-6 of what the two rows' squared distances from the middle are, so that of
        rows in float32 which are a thousand times nearer to each other than to the middle nothing is told apart.
        """
        total = self.centred_gram
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
        total, used = np.zeros(self.dimension), np.flatnonzero(by_vector)
        for start in range(0, self.dimension, 2 * _STRETCH):  # a stretch of the sum stays in the cache for all rows
            part = slice(start, start + 2 * _STRETCH)
            for i in used:
                add_scaled(total[part], self._vectors[i][part], float(by_vector[i]))
        return total

    def products_with(self, vector: np.ndarray) -> np.ndarray:
        """`[m]` in float64: each row's inner product with a vector `[P]`."""
        found = np.zeros(len(self._vectors))
        for columns, block in Rows(self._vectors).blocks():
            found += block.astype(np.float64) @ vector[columns].astype(np.float64)
        return found if self._mix is None else np.asarray(self._mix @ found)


def _working(dtype: np.dtype[np.floating]) -> np.dtype[np.floating]:
    return np.result_type(dtype, np.float32)  # float16 has neither the range nor a fast product


def _scales(norms: np.ndarray, dtype: np.dtype[np.floating]) -> np.ndarray:
    """Powers of two that bring norms out of the ordinary to about 1, as far as `dtype` goes; 1 for all others."""
    ordinary = (norms == 0) | ((norms >= 1 / _PLAIN) & (norms <= _PLAIN))
    largest = np.finfo(dtype).maxexp - 1  # the inverse of the least number is out of range
    return np.where(ordinary, 1.0, np.ldexp(1.0, np.minimum(-np.frexp(norms)[1], largest)))


def _norm(vector: np.ndarray) -> float:
    """L2 norm to about 1e-6 of it; of any finite elements, however large or small."""
    total, odd = 0.0, 0.0
    for start in range(0, len(vector), _STRETCH):
        part = vector[start : start + _STRETCH]
        with np.errstate(over="ignore", under="ignore"):
            square = float(np.dot(part, part)) if part.itemsize > 2 else 0.0
        if 1 / _PLAIN**2 <= square <= _PLAIN**2:
            total += square
        elif (largest := float(np.abs(part).max())) > 0:
            odd = math.hypot(odd, largest * float(np.linalg.norm(part.astype(np.float64) / largest)))
    return math.hypot(math.sqrt(total), odd)


def _clean(squared: np.ndarray) -> np.ndarray:
    found = np.maximum(squared, 0.0)
    found = np.asarray((found + found.T) / 2)
    np.fill_diagonal(found, 0.0)
    return found
