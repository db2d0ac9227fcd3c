"""ChaCha20's key stream: random words that nobody who lacks the key can tell from chance."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hanse.core.errors import JobError
from hanse.core.randomness import derive_seed
from hanse.trainers.artefacts import shared_library

SOURCE = Path(__file__).parents[1] / "native" / "normal_noise.cpp"

BLOCKS = 16
"""Blocks of 16 words that are made side by side: a group."""
GROUP = 16 * BLOCKS
"""Words of a group."""

# every operation is to be rounded by itself, as NumPy's are; nobody looks at errno or at traps
_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_AT_ONCE = 256  # groups: what NumPy computes of them stays in a core's cache


@dataclass(frozen=True)
class NoiseKernels:
    """The functions of `native/normal_noise.cpp`; said there what they take.

    Args:
      words: The key stream.
      normal: Normal numbers, made of it.
      add: The same, added to vectors.
    """

    words: Any
    normal: Any
    add: Any


@lru_cache(maxsize=1)
def noise_kernels() -> NoiseKernels | None:
    """The machine code, made now where this machine has none yet; None where it can't be, which changes no bit."""
    try:
        library = shared_library(SOURCE, {}, flags=_FLAGS)
    except JobError:
        return None
    functions = library.hanse_key_stream, library.hanse_normal_noise, library.hanse_add_noise
    common: list[Any] = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p]
    for function in functions:
        function.argtypes, function.restype = common, None
    functions[2].argtypes = [*common, ctypes.c_void_p, ctypes.c_float, ctypes.c_float]
    return NoiseKernels(*functions)


def key_of(private_key: int, purpose: str) -> np.ndarray:
    """The 8 words of ChaCha20's key that belong to a private key of 128 bits and a purpose."""
    low, high = (derive_seed(private_key, purpose, part, bits=128) for part in (0, 1))
    return np.frombuffer((low | high << 128).to_bytes(32, "little"), dtype="<u4").astype(np.uint32)


def random_words(key: np.ndarray, first: int, groups: int) -> Iterator[np.ndarray]:
    """The key stream in pieces `[g, 16, BLOCKS]` of uint32: the blocks of a group lie side by side, word by word.

    Args:
      key: 8 words.
      first: The first block's number, counted in 64 bits; the nonce is zero, for a key is used for one stream.
      groups: How many in all.
    """
    kernels = noise_kernels()
    for start in range(0, groups, _AT_ONCE):
        some = min(_AT_ONCE, groups - start)
        if kernels is None:
            yield _words_by_numpy(key, first + start * BLOCKS, some)
            continue
        words = np.empty((some, 16, BLOCKS), np.uint32)
        kernels.words(key.ctypes.data, first + start * BLOCKS, some, words.ctypes.data)
        yield words


def _words_by_numpy(key: np.ndarray, first: int, groups: int) -> np.ndarray:
    counters = np.arange(first, first + groups * BLOCKS, dtype=np.uint64)
    start = np.zeros((16, len(counters)), np.uint32)
    start[:4] = np.frombuffer(b"expand 32-byte k", dtype="<u4")[:, None]
    start[4:12] = key[:, None]
    start[12], start[13] = counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32)
    x = start.reshape(4, 4, -1).copy()
    for _ in range(10):
        _four_quarters(x)
        for row in (1, 2, 3):  # the diagonals stand in columns
            x[row] = np.roll(x[row], -row, axis=0)
        _four_quarters(x)
        for row in (1, 2, 3):
            x[row] = np.roll(x[row], row, axis=0)
    words = x.reshape(16, -1) + start
    return np.ascontiguousarray(words.reshape(16, groups, BLOCKS).swapaxes(0, 1))


def _four_quarters(x: np.ndarray) -> None:
    a, b, c, d = x
    for one, two, three, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        one += two
        three ^= one
        np.bitwise_or(three << np.uint32(by), three >> np.uint32(32 - by), out=three)
