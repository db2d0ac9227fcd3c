"""Paillier keys: making, checking, writing and reading them.

The public key is n and h_s = h^n mod n² for h = -x² mod n; g is n + 1. Whoever encrypts draws r of half the bits of n
and sends (1 + m n) h_s^r mod n². That this hides m rests on

- the decisional composite residuosity assumption: n-th powers modulo n² look like any other residue (Paillier 1999);
- that h^r for r of half the length looks like h^r for r of full length. Håstad, Schrift, Shamir 1993 ("The discrete
  logarithm modulo a composite hides O(n) bits") prove that from the hardness of factoring n. It is an asymptotic
  statement; the shorter exponents that other programs take (of 4 or even 2 times the security level) rest on a
  further assumption, and save little once there are tables.

n of 2048 bits is held to be worth 112 bits of security, 3072 bits 128 (NIST SP 800-57 part 1, table 2).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from functools import cached_property
from typing import Any, NoReturn

from hanse.core.errors import EncodingError, SettingError
from hanse.crypto.big import gmpy2
from hanse.crypto.octets import Reader, prefixed_int
from hanse.crypto.paillier.fixed_base import FixedBase
from hanse.crypto.paillier.primes import blum_prime, has_small_factor

LEAST_BITS = 2048
MOST_BITS = 8192
DEFAULT_BITS = 3072

_PUBLIC = b"HzPp\x01"
_SECRET = b"HzPs\x01"
_BLINDINGS = 32  # uses of one chain of blinding factors before a fresh one


class PublicKey:
    """What everybody may know: enough to encrypt and to compute, not to decrypt.

    Args:
      n: The modulus, 2048 to 8192 bits.
      h_s: The base of the randomness, an n-th power modulo n².

    Raises:
      EncodingError: They can't be a key of Paillier's: too short, even, with a small factor, out of range.
    """

    def __init__(self, n: int, h_s: int) -> None:
        self.n = gmpy2.mpz(n)
        self.n_squared = self.n * self.n
        self.h_s = gmpy2.mpz(h_s)
        self.bits = int(self.n.bit_length())
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise EncodingError(
                f"a Paillier modulus of {self.bits} bits; allowed are {LEAST_BITS} to {MOST_BITS}",
                hint="shorter keys can be factored with means that exist",
            )
        if has_small_factor(self.n) or gmpy2.is_power(self.n) or gmpy2.is_prime(self.n):
            raise EncodingError("a Paillier modulus must be a product of two large primes; this one is not")
        if not 1 < self.h_s < self.n_squared or gmpy2.gcd(self.h_s, self.n) != 1:
            raise EncodingError("a Paillier key's `h_s` is not an invertible residue modulo n²")
        self._lock = threading.Lock()
        self._table: FixedBase | None = None

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes that a ciphertext takes: those of n²."""
        return (int(self.n_squared.bit_length()) + 7) // 8

    @cached_property
    def fingerprint(self) -> bytes:
        """16 bytes that name the key."""
        return hashlib.sha256(self.to_bytes()).digest()[:16]

    def random_zero(self) -> Any:
        """A fresh encryption of 0: h_s^r mod n² for r uniform below 2^(bits / 2).

        The first call makes a table (`bits / 16` × 256 residues: 17 MB at 2048 bits, 38 MB at 3072).
        """
        with self._lock:
            if self._table is None:
                self._table = FixedBase(self.h_s, self.n_squared, exponent_bytes=(self.bits + 15) // 16)
        return self._table.random_power()

    def uniform_zero(self) -> Any:
        """An encryption of 0 that is uniform among all: r^n mod n² for r uniform, at a textbook encryption's cost.

        What is multiplied by it says nothing any more about how it came to be, not even to who holds the secret key:
        `random_zero`, whose exponents are short, could not promise that.
        """
        while True:
            r = gmpy2.mpz(secrets.randbelow(int(self.n)))
            if gmpy2.gcd(r, self.n) == 1:
                return gmpy2.powmod(r, self.n, self.n_squared)

    def to_bytes(self) -> bytes:
        """For others, who read it with `from_bytes`."""
        return _PUBLIC + prefixed_int(int(self.n)) + prefixed_int(int(self.h_s))

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKey:
        """A key that somebody sent.

        Raises:
          EncodingError: These bytes are no key, or one that is refused.
        """
        reader = Reader(data, "a Paillier public key")
        reader.magic(_PUBLIC)
        n = reader.prefixed_int(limit=MOST_BITS // 8, name="n")
        h_s = reader.prefixed_int(limit=MOST_BITS // 4, name="h_s")
        reader.end()
        return cls(n, h_s)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self.n, self.h_s) == (other.n, other.h_s)

    def __hash__(self) -> int:
        return hash((self.n, self.h_s))

    def __repr__(self) -> str:
        return f"PublicKey({self.bits} bits, {self.fingerprint.hex()[:12]})"

    def __reduce__(self) -> tuple[object, ...]:
        return (PublicKey.from_bytes, (self.to_bytes(),))  # without its table: a worker makes its own


class SecretKey:
    """What decrypts. It shows itself in no message, and refuses to be pickled.

    Python can't wipe memory: the key stays in this process's until it ends. Powers with secret exponents are taken of
    blinded ciphertexts, so who sends ciphertexts and measures times learns nothing from those; a program that watches
    the caches of the same machine might.

    Args:
      p: One prime.
      q: The other.
      h_s: As in the public key.

    Raises:
      EncodingError: They are no such primes.
    """

    def __init__(self, p: int, q: int, h_s: int) -> None:
        p, q = gmpy2.mpz(p), gmpy2.mpz(q)
        good = p != q and p.bit_length() == q.bit_length() and all(x & 3 == 3 and gmpy2.is_prime(x, 40) for x in (p, q))
        if not good or gmpy2.gcd(p - 1, q - 1) != 2:
            raise EncodingError("these are not the primes of a Paillier key")
        self.public = PublicKey(int(p * q), h_s)
        self._halves = (_Half(p, q, self.public), _Half(q, p, self.public))
        self._q_inverse = gmpy2.invert(q, p)
        self._q_square_inverse = gmpy2.invert(q * q, p * p)
        self._lock = threading.Lock()
        self._blinding: Any = None
        self._blindings_left = 0

    def decrypt_residues(self, ciphertexts: list[Any]) -> list[Any]:
        """The plaintexts in [0, n), by the Chinese remainder theorem.

            m_p = L_p(c^(p-1) mod p²) · (-q)^-1 mod p        L_p(u) = (u - 1) / p

        and the same for q. Other threads can work meanwhile.

        Args:
          ciphertexts: `mpz` in [1, n²), invertible.
        """
        blinded = self._blinded(ciphertexts)
        p_half, q_half = self._halves
        q = q_half.prime
        of_p, of_q = p_half.plain(blinded), q_half.plain(blinded)
        return [y + q * ((x - y) * self._q_inverse % p_half.prime) for x, y in zip(of_p, of_q, strict=True)]

    def random_zero(self) -> Any:
        """A fresh encryption of 0, faster than the public key's and with randomness of full length.

        Modulo p² and q² apart, with exponents that are each as long as the prime: no assumption about short exponents.
        """
        (p_half, q_half), q = self._halves, self._halves[1].square
        x, y = p_half.random_power(), q_half.random_power()
        return y + q * ((x - y) * self._q_square_inverse % p_half.square)

    def _blinded(self, ciphertexts: list[Any]) -> list[Any]:
        """Each times a fresh-looking encryption of 0: one is drawn, and squared from one to the next."""
        modulus = self.public.n_squared
        found = []
        with self._lock:
            for ciphertext in ciphertexts:
                if self._blindings_left == 0:
                    self._blinding, self._blindings_left = self.random_zero(), _BLINDINGS
                else:
                    self._blinding = self._blinding * self._blinding % modulus
                self._blindings_left -= 1
                found.append(ciphertext * self._blinding % modulus)
        return found

    def to_bytes(self) -> bytes:
        """The secret itself, for safe keeping or for `key_transport.wrap_key`; never for a log."""
        p, q = (int(half.prime) for half in self._halves)
        return _SECRET + prefixed_int(p) + prefixed_int(q) + prefixed_int(int(self.public.h_s))

    @classmethod
    def from_bytes(cls, data: bytes) -> SecretKey:
        """A key that was kept.

        Raises:
          EncodingError: These bytes are no key, or one that is refused.
        """
        reader = Reader(data, "a Paillier secret key")
        reader.magic(_SECRET)
        p = reader.prefixed_int(limit=MOST_BITS // 16, name="first prime")
        q = reader.prefixed_int(limit=MOST_BITS // 16, name="second prime")
        h_s = reader.prefixed_int(limit=MOST_BITS // 4, name="h_s")
        reader.end()
        return cls(p, q, h_s)

    def __repr__(self) -> str:
        return f"SecretKey(of {self.public!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled; to_bytes() writes it for safe keeping")


class _Half:
    """The arithmetic modulo the square of one of the primes."""

    def __init__(self, prime: Any, other: Any, public: PublicKey) -> None:
        self.prime = prime
        self.square = prime * prime
        self._scale = gmpy2.invert(-other % prime, prime)
        self._h_s = public.h_s % self.square
        self._lock = threading.Lock()
        self._table: FixedBase | None = None

    def plain(self, ciphertexts: list[Any]) -> list[Any]:
        prime, scale = self.prime, self._scale
        powers = gmpy2.powmod_base_list([c % self.square for c in ciphertexts], prime - 1, self.square)
        return [(power - 1) // prime * scale % prime for power in powers]

    def random_power(self) -> Any:
        with self._lock:
            if self._table is None:
                # 8 bytes beyond the prime: the exponent modulo p - 1 is uniform to within 2^-64
                length = (int(self.prime.bit_length()) + 7) // 8 + 8
                self._table = FixedBase(self._h_s, self.square, exponent_bytes=length)
        return self._table.random_power()

    def __repr__(self) -> str:
        return "_Half(…)"


def generate_keys(bits: int = DEFAULT_BITS) -> SecretKey:
    """A fresh key, from the operating system's randomness; its `public` is for everybody.

    Args:
      bits: Length of n: 2048 to 8192, a multiple of 128. 3072 for 128 bits of security.

    Raises:
      SettingError: Another length.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not LEAST_BITS <= bits <= MOST_BITS or bits % 128:
        raise SettingError(
            "bits",
            f"a Paillier key of {bits!r} bits is not made; allowed are {LEAST_BITS} to {MOST_BITS} in steps of 128",
            hint=f"{DEFAULT_BITS} is worth 128 bits of security, {LEAST_BITS} about 112",
        )
    while True:
        p, q = blum_prime(bits // 2), blum_prime(bits // 2)
        if abs(p - q) >> (bits // 2 - 100) and gmpy2.gcd(p - 1, q - 1) == 2:  # FIPS 186-5, A.1.1: not too close
            break
    n = p * q
    while True:
        x = gmpy2.mpz(secrets.randbelow(int(n)))
        if x > 1 and gmpy2.gcd(x, n) == 1:
            break
    h = -(x * x) % n
    return SecretKey(int(p), int(q), int(gmpy2.powmod(h, n, n * n)))
