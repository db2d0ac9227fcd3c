"""Shamir's secret sharing over the prime field of 65,537 elements, for many secrets at once.

Why this field. A secret of 32 bytes is 16 symbols of 16 bits, shared independently with the same points; that is as
secret as one field of 256 bits, and 65,536 holders are possible, where bytes in GF(2^8) stop at 255. Products of two
elements are below 2^33, so a whole matrix product is exact in float64 and runs at the speed of linear algebra:
sharing among 500 takes a millisecond, where Python's integers modulo a prime of 256 bits take seconds.

Timing. Nothing looks a secret up in a table and nothing branches on one: secrets meet public numbers in multiplications
and are reduced by shifts and masks (2^16 = -1 in this field). Tables of logarithms are used for the holders'
numbers, which are public. NumPy makes no promise of constant time beyond that.

A wrong share is not visible in Shamir's scheme itself: whoever uses it compares shares with digests that their maker
published, and what comes out with a commitment (`unmask.py`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hanse.core.random_bytes import RandomBytes, uniform_below

PRIME = 65_537
"""Fermat's fourth prime, 2^16 + 1."""

MOST_HOLDERS = PRIME - 1

_GENERATOR = 3  # of the multiplicative group


def symbols_of(secret: bytes) -> np.ndarray:
    """A secret of an even number of bytes as numbers below 2^16, `int64[len / 2]`."""
    return np.frombuffer(secret, dtype="<u2").astype(np.int64)


def secret_of(symbols: np.ndarray) -> bytes | None:
    """The bytes that `symbols_of` came from; None where a symbol is 2^16, which no secret has."""
    return None if bool((symbols >= 1 << 16).any()) else symbols.astype("<u2").tobytes()


def split(secrets: np.ndarray, points: np.ndarray, threshold: int, source: RandomBytes) -> np.ndarray:
    """Shares such that any `threshold` of them give the secrets, and fewer tell nothing at all.

    For each secret s a polynomial f of degree `threshold` - 1 with f(0) = s and otherwise uniform coefficients; the
    share at x is f(x).

    Args:
      secrets: Symbols, `int64[s]`, each in [0, PRIME).
      points: The holders' numbers x, different, in [1, 65536], `int64[n]`.
      threshold: t, 1 to n.
      source: Of the coefficients.

    Returns:
      `int64[n, s]`, a row of shares for each holder.

    References:
      Shamir 1979, "How to share a secret".
    """
    coefficients = np.empty((threshold, len(secrets)))
    coefficients[0] = secrets
    drawn = uniform_below(source.draw, PRIME, (threshold - 1) * len(secrets))
    coefficients[1:] = drawn.reshape(threshold - 1, len(secrets))
    exponents = np.arange(threshold)
    powers = _antilog()[np.multiply.outer(_log()[points], exponents) % (PRIME - 1)]
    return _reduced((powers.astype(np.float64) @ coefficients).astype(np.int64))


def combine(points: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The secrets, by Lagrange's interpolation at 0: `int64[s]` from the rows `int64[t, s]`; right or wrong, not said.

    Args:
      points: Different numbers in [1, 65536], `int64[t]`.
      shares: A row for each point.
    """
    return _reduced((lagrange_at_zero(points).astype(np.float64) @ shares.astype(np.float64)).astype(np.int64))


def lagrange_at_zero(points: np.ndarray) -> np.ndarray:
    """λ_j = Π_{m≠j} x_m / (x_m - x_j), `int64[t]`, by logarithms: the points are public.

    >>> lagrange_at_zero(np.array([1, 2])).tolist()
    [2, 65536]
    """
    logs = _log()[points]
    differences = (points[None, :] - points[:, None]) % PRIME
    np.fill_diagonal(differences, 1)  # whose logarithm is 0
    exponents = logs.sum() - logs - _log()[differences].sum(axis=1)
    found: np.ndarray = _antilog()[exponents % (PRIME - 1)]
    return found


def pack(rows: np.ndarray) -> list[bytes]:
    """Each row's symbols as bytes: 16 bits each, then a bit each that says which are 2^16."""
    low = np.ascontiguousarray((rows & 0xFFFF).astype("<u2")).view(np.uint8)
    high = np.packbits((rows >> 16).astype(np.uint8), axis=1, bitorder="little")
    return [row.tobytes() for row in np.concatenate([low, high], axis=1)]


def packed_bytes(count: int) -> int:
    """Bytes that `pack` makes of `count` symbols."""
    return 2 * count + -(-count // 8)


def unpack(packed: list[bytes], count: int) -> np.ndarray | None:
    """The rows of `count` symbols that `pack` made these bytes of; None where it never makes such."""
    size = packed_bytes(count)
    if any(len(row) != size for row in packed):
        return None
    rows = np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(len(packed), size)
    low = np.ascontiguousarray(rows[:, : 2 * count]).view("<u2").astype(np.int64)
    bits = np.unpackbits(rows[:, 2 * count :], axis=1, bitorder="little").astype(np.int64)
    high = bits[:, :count]
    if bits[:, count:].any() or (low * high).any():  # 2^16 has no low bits
        return None
    symbols: np.ndarray = low + (high << 16)
    return symbols


def _reduced(numbers: np.ndarray) -> np.ndarray:
    """Numbers in [0, 2^53) modulo PRIME without dividing: 2^16 = -1, so limbs of 16 bits alternate in sign."""
    limb = np.int64(0xFFFF)
    folded = (numbers & limb) - ((numbers >> 16) & limb) + ((numbers >> 32) & limb) - (numbers >> 48)
    folded += PRIME & (folded >> 63)  # the shift is all ones where it is negative
    folded += PRIME & (folded >> 63)
    folded -= PRIME
    folded += PRIME & (folded >> 63)
    return np.asarray(folded)


@lru_cache(maxsize=1)
def _antilog() -> np.ndarray:
    """3^e for e in [0, 65536)."""
    powers = np.ones(1, dtype=np.int64)
    factor = _GENERATOR
    while len(powers) < PRIME - 1:
        powers = np.concatenate([powers, powers * factor % PRIME])
        factor = factor * factor % PRIME
    return powers


@lru_cache(maxsize=1)
def _log() -> np.ndarray:
    """The inverse of `_antilog`, by number; entry 0 is never asked for."""
    logs = np.zeros(PRIME, dtype=np.int64)
    logs[_antilog()] = np.arange(PRIME - 1)
    return logs
