"""Powers of one base, many times: a table of the base's powers, and a product of a few of them for each."""

from __future__ import annotations

import secrets
from typing import Any

from hanse.crypto.big import gmpy2


class FixedBase:
    """`g^r mod m` for one g and many r, by a table of `g^(d · 256^i)` for each byte d of r.

    With r = Σ r_i 256^i

        g^r = Π_i table[i][r_i]

    which is one multiplication for each byte of r, where a power by squaring takes eight squarings and more. Every
    power takes the same multiplications whatever r is; which entries are read does depend on r, so a program that
    watches this machine's caches could learn it.

    Args:
      base: g, in [1, m).
      modulus: m.
      exponent_bytes: Length of the exponents; the table holds `256 · exponent_bytes` residues.

    References:
      Brickell, Gordon, McCurley, Wilson 1992, "Fast exponentiation with precomputation", EUROCRYPT '92.

    >>> FixedBase(3, 1009, exponent_bytes=2).power(bytes([7, 1])) == pow(3, 7 + 256, 1009)
    True
    """

    def __init__(self, base: Any, modulus: Any, *, exponent_bytes: int) -> None:
        self.modulus = gmpy2.mpz(modulus)
        self.exponent_bytes = exponent_bytes
        self._rows: list[list[Any]] = []
        step = gmpy2.mpz(base)
        for _ in range(exponent_bytes):
            row = [gmpy2.mpz(1), step]
            for _ in range(254):
                row.append(row[-1] * step % self.modulus)
            self._rows.append(row)
            step = row[-1] * step % self.modulus

    def power(self, exponent: bytes) -> Any:
        """`g^r mod m` for r of `exponent_bytes` bytes, the lowest first."""
        modulus = self.modulus
        product = self._rows[0][exponent[0]]
        for row, digit in zip(self._rows[1:], exponent[1:], strict=True):
            product = product * row[digit] % modulus
        return product

    def random_power(self) -> Any:
        """`g^r mod m` for r uniform in [0, 256^exponent_bytes), from the operating system."""
        return self.power(secrets.token_bytes(self.exponent_bytes))
