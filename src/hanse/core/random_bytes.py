"""Where secret bytes come from: the operating system, or, for simulation alone, a seeded generator.

Keys and masks of a secure sum protect somebody only if nobody can draw them again, so `OsBytes` takes no seed.
`SimulatedBytes` is for simulations, which must come out the same each time and protect nobody; what takes a source
refuses one that is not secret unless it was told that this is a simulation.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from hanse.core.errors import SettingError

_PIECE = 1 << 20  # numbers made at a time: bounded memory
_WIDTHS: tuple[Any, ...] = (np.uint8, np.uint16, np.uint32, np.uint64)


class RandomBytes(Protocol):
    """Independent uniform bytes."""

    is_secret: bool
    """Whether nobody else can know what was drawn, as keys that protect real data demand."""

    def draw(self, size: int) -> bytes:
        """The next `size` bytes."""
        ...


class OsBytes:
    """Bytes of the operating system's cryptographic generator."""

    is_secret = True

    def draw(self, size: int) -> bytes:
        """As `RandomBytes.draw`."""
        return secrets.token_bytes(size)


class SimulatedBytes:
    """Bytes of a seeded stream, for simulation: the same seed gives the same keys, so they protect nobody.

    Args:
      generator: From `hanse.core.randomness.stream`.

    Raises:
      SettingError: Something else than a NumPy generator, such as a bare seed.
    """

    is_secret = False

    def __init__(self, generator: np.random.Generator) -> None:
        if not isinstance(generator, np.random.Generator):
            raise SettingError(
                "",
                f"simulated secret bytes need a NumPy generator; this is a {type(generator).__name__}",
                hint="hanse.core.randomness.stream(seed, purpose, …); what protects real data takes OsBytes()",
            )
        self._generator = generator

    def draw(self, size: int) -> bytes:
        """As `RandomBytes.draw`."""
        return self._generator.bytes(size)


def uniform_below(draw: Callable[[int], bytes], limit: int, size: int) -> np.ndarray:
    """Exactly uniform whole numbers in [0, limit), `int64[size]`: take just enough bits, throw away what is too large.

    Args:
      draw: Gives that many uniform bytes.
      limit: In [1, 2^62].
      size: How many numbers.

    >>> uniform_below(lambda size: bytes(range(size)), 256, 4).tolist()
    [0, 1, 2, 3]
    """
    bits = (limit - 1).bit_length()
    if bits == 0:
        return np.zeros(size, dtype=np.int64)
    width = next(kind for kind in _WIDTHS if bits <= 8 * np.dtype(kind).itemsize)
    item = np.dtype(width).itemsize
    shift = width(8 * item - bits)
    kept: list[np.ndarray] = []
    missing = size
    while missing > 0:
        wanted = missing if limit == 1 << bits else int(missing * (1 << bits) / limit * 1.05) + 8
        numbers = np.frombuffer(draw(item * min(wanted, _PIECE)), dtype=width) >> shift
        kept.append(numbers[numbers < limit].astype(np.int64)[:missing])
        missing -= len(kept[-1])
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
