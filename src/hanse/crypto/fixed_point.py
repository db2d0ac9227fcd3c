"""Real numbers as whole ones on a stated scale, with a stated limit: what exact encryption can add."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hanse.core.errors import EncodingError, NonFiniteUpdateError, SettingError

_EXACT = 1 << 53


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """x as the whole number nearest to x · 2^f; halves go to the even one.

    Limit and scale are stated beforehand and never taken from the data: they stand beside each ciphertext in plain.

    Args:
      fraction_bits: f, 0 to 60: the step is 2^-f, the rounding error at most 2^-(f + 1).
      limit: Largest magnitude of a number, > 0; larger ones are refused and not cut. limit · 2^f is at most 2^53.

    Raises:
      SettingError: A setting is out of range.

    >>> FixedPoint(fraction_bits=8, limit=4).encode(np.array([1.5, -0.001, 4.0]))
    array([ 384,    0, 1024])
    """

    fraction_bits: int
    limit: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction_bits <= 60:
            raise SettingError("fraction_bits", f"must be 0 to 60, got {self.fraction_bits}")
        if not 0 < self.limit < math.inf:
            raise SettingError("limit", f"must be above 0 and finite, got {self.limit}")
        if not 1 <= math.ldexp(self.limit, self.fraction_bits) <= _EXACT:
            raise SettingError(
                "limit",
                f"{self.limit} with {self.fraction_bits} fraction bits makes whole numbers of up to "
                f"{math.ldexp(self.limit, self.fraction_bits):.3g}; wanted 1 to 2^53",
                hint="float64 holds no more; use fewer fraction bits or a smaller limit",
            )

    @property
    def bound(self) -> int:
        """Largest magnitude of an encoded number."""
        return round(math.ldexp(self.limit, self.fraction_bits))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Whole numbers, `int64` of the same shape.

        Raises:
          NonFiniteUpdateError: A value is NaN or infinite.
          EncodingError: A value is beyond the limit.
        """
        numbers = np.asarray(values, dtype=np.float64)
        largest = float(np.abs(numbers).max(initial=0.0))  # NaN if there is one
        if not math.isfinite(largest):
            raise NonFiniteUpdateError("there is NaN or an infinity among the values to encrypt; nothing was encrypted")
        if largest > self.limit:  # the value itself stays out of the message: it is what is to be kept secret
            raise EncodingError(
                f"a value to encrypt is beyond the limit of {self.limit:g}; nothing was encrypted",
                hint="clip the values first, or state a larger limit",
            )
        return np.rint(np.ldexp(numbers, self.fraction_bits)).astype(np.int64)


def decoded(whole: np.ndarray, fraction_bits: int) -> np.ndarray:
    """Whole numbers of any size divided by 2^f, correctly rounded: `float64` of the same shape."""
    if whole.dtype != object:
        return np.ldexp(whole.astype(np.float64), -fraction_bits)
    scale = 1 << fraction_bits
    flat = [int(number) / scale for number in whole.ravel()]
    return np.array(flat, dtype=np.float64).reshape(whole.shape)
