"""Primes for a Paillier key, from the operating system's randomness."""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import Any

from hanse.crypto.big import gmpy2

_SMALL = 1 << 10
_LARGE = 1 << 16
_ROUNDS = 40


def blum_prime(bits: int) -> Any:
    """A random prime p of exactly `bits` bits with p ≡ 3 (mod 4) and no prime below 2^16 in (p - 1) / 2.

    Its two highest bits are set, so that a product of two has exactly twice the bits. Candidates are independent and
    uniform: a search upwards from a random start would prefer primes after long gaps. That (p - 1) / 2 has no small
    factor makes a random square generate all squares but for a chance of about 2^-16, as safe primes would, in a
    fraction of their time.

    Args:
      bits: Length, at least 512.

    Returns:
      An `mpz`; a composite passes with probability below 4^-40 (for random candidates far below).
    """
    high = gmpy2.mpz(3) << (bits - 2)
    while True:
        candidate = gmpy2.mpz(secrets.randbits(bits)) | high | 3
        both = candidate * (candidate >> 1)  # (p - 1) / 2 is p >> 1, as p is odd
        if gmpy2.gcd(both, _primorial(_SMALL)) != 1 or gmpy2.gcd(both, _primorial(_LARGE)) != 1:
            continue
        if gmpy2.is_prime(candidate, _ROUNDS):
            return candidate


def has_small_factor(number: Any) -> bool:
    """Whether a prime below 2^16 divides it."""
    return bool(gmpy2.gcd(number, _primorial(_LARGE)) != 1)


@lru_cache(maxsize=2)
def _primorial(limit: int) -> Any:
    return gmpy2.primorial(limit)
