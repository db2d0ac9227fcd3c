"""Where noise comes from: the operating system, or, for simulation alone, a seeded generator. There is no default.

`OsRandomness` takes no seed and can't be replayed: whoever can replay the noise can subtract it. A seeded stream is
for simulations, where nobody's data is protected and results must come out the same; what is released from real data
must never use it. `KeyedRandomness` stands between: noise that is needed again later, such as that which later rounds
partly take back, is a function of a key that is kept secret.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from hanse.core.errors import PrivacyError

KEY_BYTES = 32
"""Length of a key of `KeyedRandomness`."""

_LARGEST_BELOW = 1 << 62
_PIECE = 1 << 20  # normals made at a time from OS bytes: bounded memory
_WIDTHS: tuple[Any, ...] = (np.uint8, np.uint16, np.uint32, np.uint64)


class RandomSource(Protocol):
    """Independent uniform bits, and what is made of them."""

    is_secret: bool
    """Whether what was drawn is unknown to everybody else, as a release of real data demands."""

    def below(self, limit: int, size: int) -> np.ndarray:
        """Whole numbers, exactly uniform in [0, limit), `int64[size]`; limit in [1, 2^62]."""
        ...

    def normals(self, size: int) -> np.ndarray:
        """Standard normal numbers, `float64[size]`, as good as floating point makes them."""
        ...

    def generator(self) -> np.random.Generator:
        """A NumPy generator for one draw from a distribution that only NumPy has."""
        ...


class OsRandomness:
    """Bits of the operating system's cryptographic generator, straight (`secrets`)."""

    is_secret = True

    def below(self, limit: int, size: int) -> np.ndarray:
        """As `RandomSource.below`."""
        return _below(self._bytes, limit, size)

    def normals(self, size: int) -> np.ndarray:
        """As `RandomSource.normals`: Box and Muller's transform of 53-bit uniforms, so no number is beyond 8.7.

        No state of a generator lies between the bits and the noise that seen noise could give away.

        References:
          Box, Muller 1958, "A note on the generation of random normal deviates".
        """
        return _normals(self._bytes, size)

    def generator(self) -> np.random.Generator:
        """As `RandomSource.generator`: Philox with 128 fresh bits as its key; not a cryptographic generator."""
        return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))

    def _bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)


class SimulatedRandomness:
    """A seeded stream, for simulation: the same seed gives the same noise, so it protects nobody.

    Args:
      generator: From `hanse.core.randomness.stream`.
    """

    is_secret = False

    def __init__(self, generator: np.random.Generator) -> None:
        if not isinstance(generator, np.random.Generator):
            raise PrivacyError(
                f"simulated noise needs a NumPy generator; this is a {type(generator).__name__}",
                hint="hanse.core.randomness.stream(seed, purpose, …); what protects real data takes OsRandomness()",
            )
        self._generator = generator

    def below(self, limit: int, size: int) -> np.ndarray:
        """As `RandomSource.below`."""
        return _below(self._generator.bytes, limit, size)

    def normals(self, size: int) -> np.ndarray:
        """As `RandomSource.normals`, by NumPy."""
        return self._generator.standard_normal(size)

    def generator(self) -> np.random.Generator:
        """The stream itself."""
        return self._generator


class KeyedRandomness:
    """A stream that is a function of a key and a purpose: SHAKE-256 of both and a counter.

    The bits, unlike those of a NumPy generator's distributions, do not change with versions, and what was drawn
    does not give away what else was, as long as the key is secret.

    Args:
      key: 32 bytes.
      purpose: What the stream is for; another purpose gives an independent stream.
      is_secret: Whether nobody else knows the key, as a release of real data demands.

    Raises:
      PrivacyError: The key has another length.

    References:
      NIST FIPS 202, 2015, section 6.2 (SHAKE256).

    >>> first, again = (KeyedRandomness(bytes(32), "round 1", is_secret=False).normals(3) for _ in range(2))
    >>> bool((first == again).all())
    True
    """

    def __init__(self, key: bytes, purpose: str, *, is_secret: bool) -> None:
        if len(key) != KEY_BYTES:
            raise PrivacyError(f"a noise key of {len(key)} bytes; wanted {KEY_BYTES}")
        self.is_secret = is_secret
        self._prefix = key + len(purpose.encode()).to_bytes(4, "big") + purpose.encode()
        self._drawn = 0

    def below(self, limit: int, size: int) -> np.ndarray:
        """As `RandomSource.below`."""
        return _below(self._bytes, limit, size)

    def normals(self, size: int) -> np.ndarray:
        """As `RandomSource.normals`, by Box and Muller's transform."""
        return _normals(self._bytes, size)

    def generator(self) -> np.random.Generator:
        """As `RandomSource.generator`: Philox with the stream's next 128 bits as its key."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self._bytes(16), "big")))

    def _bytes(self, size: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_256(self._prefix + self._drawn.to_bytes(8, "big")).digest(size)


def _normals(draw: Callable[[int], bytes], size: int) -> np.ndarray:
    """Box and Muller's transform of 53-bit uniforms, a piece at a time."""
    found = np.empty(size)
    for start in range(0, size, _PIECE):
        piece = found[start : start + _PIECE]
        pairs = (len(piece) + 1) // 2
        words = np.frombuffer(draw(16 * pairs), dtype="<u8")
        uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
        radius = np.sqrt(-2 * np.log(uniform[:pairs]))
        angle = 2 * np.pi * uniform[pairs:]
        piece[:pairs] = radius * np.cos(angle)
        piece[pairs:] = (radius * np.sin(angle))[: len(piece) - pairs]
    return found


def _below(draw: Callable[[int], bytes], limit: int, size: int) -> np.ndarray:
    """Exactly uniform numbers from bytes: take just enough bits, and throw away what is too large."""
    if not 1 <= limit <= _LARGEST_BELOW:
        raise PrivacyError(f"a uniform number below {limit} is out of range; the limit is at most 2^62")
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
