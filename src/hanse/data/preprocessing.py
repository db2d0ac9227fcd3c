"""Preparing inputs: standardised columns fitted to additive statistics, and constant scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hanse.core.errors import DataError, SettingError
from hanse.core.protocols import Preprocess
from hanse.data.schema import DataSchema

_BLOCK = 4096
# float64 sums resolve a variance down to about this share of the mean square; below it there is only rounding error
_RESOLUTION = 1e-13


@dataclass(frozen=True, kw_only=True)
class Standardize:
    """Each column of a table to mean 0 and standard deviation 1; missing values (NaN) to 0, the mean.

    With n, s, q the count, sum and sum of squares of a column's values that are there:

        x ← (x − s/n) / √(q/n − (s/n)²)

    Sums are additive, so those of all clients together give the moments of the pooled rows, and no row leaves a
    client. The price is cancellation: q/n and (s/n)² agree in their leading digits where the mean is large beside
    the spread. A spread below about 3e-7 of the root mean square (the resolution of float32 inputs) can't be told
    from rounding; such a column counts as constant. A constant column becomes 0.

    Args:
      fit: `"federated"`: one mean and deviation for all clients, from their sums. `"client"`: each client its own.
      clip: Bound to which standardised values are clipped, > 0, in standard deviations; None leaves them.
    """

    fit: Literal["federated", "client"] = "federated"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.fit not in ("federated", "client"):
            raise SettingError("fit", f'must be "federated" or "client", got {self.fit!r}')
        if self.clip is not None and not self.clip > 0:
            raise SettingError("clip", f"must be more than 0, got {self.clip}")

    @property
    def scope(self) -> Literal["federated", "client"]:
        """Whose examples the statistics come from."""
        return self.fit

    def local_statistics(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """`count`, `sum` and `sum_squares` of each column's values that are there: `[d]` each, in float64.

        Args:
          x: A table `[n, d]` of numbers; n may be 0.

        Raises:
          DataError: No table, no numbers, or an infinity.
        """
        _check_table(x)
        width = x.shape[1]
        found = {name: np.zeros(width) for name in ("count", "sum", "sum_squares")}
        # block by block: bounded memory, and sums of sums round less than one long sum
        for start in range(0, len(x), _BLOCK):
            block = x[start : start + _BLOCK].astype(np.float64)
            there = ~np.isnan(block)
            block[~there] = 0.0
            found["count"] += there.sum(axis=0)
            found["sum"] += block.sum(axis=0)
            with np.errstate(over="ignore"):  # found below, and said in words
                found["sum_squares"] += np.square(block).sum(axis=0)
        unusable = ~np.isfinite(found["sum_squares"])
        if unusable.any():
            raise _infinite(int(np.argmax(unusable)))
        return found

    def moments(self, statistics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each column, `[d]` each; the deviation of a constant column is 0."""
        count = np.maximum(statistics["count"], 1.0)
        mean = statistics["sum"] / count
        mean_square = statistics["sum_squares"] / count
        variance = np.maximum(mean_square - np.square(mean), 0.0)
        variance[variance <= _RESOLUTION * mean_square] = 0.0
        return mean, np.sqrt(variance)

    def apply(self, x: np.ndarray, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
        """The standardised table `[n, d]` in float32, all finite.

        Raises:
          DataError: No table, not the columns that the statistics were fitted to, or an infinity.
        """
        _check_table(x)
        missing = {"count", "sum", "sum_squares"} - set(statistics)
        if missing:
            raise DataError(f"standardising needs statistics of the columns; {sorted(missing)} did not come")
        if statistics["count"].shape != (x.shape[1],):
            raise DataError(
                f"the table has {x.shape[1]} columns; the statistics were fitted to {statistics['count'].size}"
            )
        mean, deviation = self.moments(statistics)
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        # a value far from a column of almost no spread may not fit a float32
        bound = float(np.finfo(np.float32).max) if self.clip is None else self.clip
        prepared = np.empty(x.shape, dtype=np.float32)
        for start in range(0, len(x), _BLOCK):
            block = x[start : start + _BLOCK].astype(np.float64)
            infinite = np.isinf(block).any(axis=0)
            if infinite.any():
                raise _infinite(int(np.argmax(infinite)))
            with np.errstate(over="ignore"):
                block = (block - mean) * factor
            block[np.isnan(block)] = 0.0
            np.clip(block, -bound, bound, out=block)
            prepared[start : start + _BLOCK] = block
        return prepared


@dataclass(frozen=True, kw_only=True)
class Scale:
    """`(x − subtract) / divide_by`, the same constants everywhere; needs no statistics.

    Args:
      divide_by: In the inputs' unit, not 0; 255 turns the bytes of an image into numbers from 0 to 1.
      subtract: In the inputs' unit.

    >>> Scale(divide_by=255).apply(np.array([[0, 255]], dtype=np.uint8), {})
    array([[0., 1.]], dtype=float32)
    """

    divide_by: float = 1.0
    subtract: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.divide_by) and self.divide_by != 0):
            raise SettingError("divide_by", f"must be a number other than 0, got {self.divide_by}")
        if not np.isfinite(self.subtract):
            raise SettingError("subtract", f"must be a finite number, got {self.subtract}")

    @property
    def scope(self) -> Literal["federated", "client"]:
        """Nothing is shared."""
        return "client"

    def local_statistics(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """None."""
        return {}

    def apply(self, x: np.ndarray, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
        """The scaled inputs, of any shape, in float32."""
        if x.dtype.kind not in "fiub":
            raise DataError(f"inputs came as {x.dtype}; scaling needs numbers")
        prepared = x.astype(np.float32)
        if self.subtract:
            prepared -= np.float32(self.subtract)
        prepared /= np.float32(self.divide_by)
        return prepared


def preprocess_for(schema: DataSchema, chosen: Preprocess | Literal["auto"] | None) -> Preprocess | None:
    """What `"auto"` stands for: `Standardize()` for tables, nothing for images."""
    if isinstance(chosen, str):
        if chosen != "auto":
            raise SettingError("preprocess", f'got {chosen!r}; wanted a preprocessing, None or "auto"')
        return Standardize() if len(schema.input_shape) == 1 else None
    return chosen


def _infinite(column: int) -> DataError:
    return DataError(
        f"column {column} holds an infinity or numbers too large to square, and can't be standardised",
        hint="mark missing values by NaN",
    )


def _check_table(x: np.ndarray) -> None:
    if x.ndim != 2:
        raise DataError(
            f"standardising needs a table of shape [n, d]; got inputs of shape {list(x.shape)}",
            hint="for images use Scale(divide_by=255) or no preprocessing",
        )
    if x.dtype.kind not in "fiub":
        raise DataError(f"inputs came as {x.dtype}; standardising needs numbers")
