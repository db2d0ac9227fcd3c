"""Arrays of encrypted fixed-point numbers, and what can be computed with them without the secret key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hanse.core.errors import EncodingError, SettingError
from hanse.crypto.big import gmpy2
from hanse.crypto.fixed_point import FixedPoint
from hanse.crypto.octets import Reader, prefixed_int
from hanse.crypto.paillier.keys import PublicKey
from hanse.crypto.paillier.packing import MOST_SLOTS, Slots

_MAGIC = b"HzPa\x01"
_MOST_BOUND_BYTES = 1024


@dataclass(frozen=True, eq=False, kw_only=True)
class EncryptedArray:
    """Ciphertexts of whole numbers on a scale of 2^-f, and how large those can be at most.

    Each ciphertext holds `slots.count` numbers. The bound follows every operation; one whose outcome could leave its
    slot is refused before it happens, and decryption refuses a number beyond its bound: no sum is wrong in silence.

    An outcome says how it came to be, to whoever knows the randomness of what went into it: call `rerandomized` before
    an outcome goes back to the holder of the secret key. Times of `times` and `histogram` depend on the plain factors
    and bins.

    Args:
      key: The public key.
      ciphertexts: `object[n]` of `mpz` in [1, n²).
      slots: How a plaintext is laid out.
      fraction_bits: f.
      bound: Largest magnitude of a slot's whole number.
    """

    key: PublicKey
    ciphertexts: np.ndarray
    slots: Slots
    fraction_bits: int
    bound: int

    def __post_init__(self) -> None:
        self.slots.require_room(self.key)
        if not 0 <= self.bound <= self.slots.bound:
            raise EncodingError(
                f"the outcome could need {self.bound.bit_length() + 1} bits, a slot has {self.slots.bits}",
                hint="encrypt with a smaller limit, fewer fraction bits, or slots for more additions",
            )

    def __len__(self) -> int:
        return len(self.ciphertexts)

    def __repr__(self) -> str:
        return f"EncryptedArray({len(self)} ciphertexts × {self.slots.count} of {self.key!r})"

    def __add__(self, other: EncryptedArray) -> EncryptedArray:
        """Sums, element by element; raises `EncodingError` if the two do not go together."""
        self._require_like(other)
        product = self.ciphertexts * other.ciphertexts % self.key.n_squared
        return replace(self, ciphertexts=product, bound=self.bound + other.bound)

    def __neg__(self) -> EncryptedArray:
        inverse = [gmpy2.invert(c, self.key.n_squared) for c in self.ciphertexts]
        return replace(self, ciphertexts=_objects(inverse))

    def __sub__(self, other: EncryptedArray) -> EncryptedArray:
        """Differences, element by element."""
        return self + -other

    def plus(self, values: np.ndarray, encoding: FixedPoint) -> EncryptedArray:
        """Each plus a plain number.

        Args:
          values: `float64[n]`, or `[n, slots]` where there are several.
          encoding: How to encode them, on the same scale.

        Raises:
          EncodingError: Another scale or shape, a value beyond its limit, or an outcome that could leave its slot.
        """
        if encoding.fraction_bits != self.fraction_bits:
            raise EncodingError(
                f"numbers of {encoding.fraction_bits} fraction bits can't be added to encrypted ones of "
                f"{self.fraction_bits}",
            )
        plain = plaintexts(encoding.encode(values), self.slots)
        if len(plain) != len(self):
            raise EncodingError(f"{len(plain)} numbers can't be added to {len(self)} encrypted ones")
        n, n_squared = self.key.n, self.key.n_squared
        shifted = [c * (1 + n * (m % n)) % n_squared for c, m in zip(self.ciphertexts, plain, strict=True)]
        return replace(self, ciphertexts=_objects(shifted), bound=self.bound + encoding.bound)

    def times(self, factors: np.ndarray, encoding: FixedPoint) -> EncryptedArray:
        """Each ciphertext times a plain number, the same for all its slots; scales multiply.

        Args:
          factors: `float64[n]`; for whole numbers an encoding of 0 fraction bits.
          encoding: How to encode them.

        Raises:
          EncodingError: Another shape, a factor beyond its limit, or an outcome that could leave its slot.
        """
        whole = encoding.encode(factors)
        if whole.shape != (len(self),):
            raise EncodingError(f"factors of shape {whole.shape} for {len(self)} ciphertexts")
        n_squared = self.key.n_squared
        powers = [gmpy2.powmod(c, int(k), n_squared) for c, k in zip(self.ciphertexts, whole, strict=True)]
        return replace(
            self,
            ciphertexts=_objects(powers),
            fraction_bits=self.fraction_bits + encoding.fraction_bits,
            bound=self.bound * encoding.bound,
        )

    def sum(self) -> EncryptedArray:
        """The sum of all, of length 1."""
        return self.histogram(np.zeros(len(self), dtype=np.int64), 1)

    def histogram(self, bins: np.ndarray, num_bins: int) -> EncryptedArray:
        """For each bin the sum of the numbers that fall into it.

        The bound allows for all in one bin: how many fall into which is not to be seen from it.

        Args:
          bins: `int64[n]` in [0, num_bins).
          num_bins: How many there are, >= 1; an empty one holds an encryption of 0 that anybody can read.

        Raises:
          EncodingError: Bins of another length, or out of range, or a sum that could leave its slot.
        """
        bins = np.asarray(bins)
        if bins.shape != (len(self),) or (len(bins) and not 0 <= bins.min() <= bins.max() < num_bins):
            raise EncodingError(f"bins must be {len(self)} numbers from 0 to {num_bins - 1}")
        outcome = replace(  # refuses before the work is done
            self, ciphertexts=np.full(num_bins, gmpy2.mpz(1), dtype=object), bound=self.bound * max(len(self), 1)
        )
        sums, n_squared = outcome.ciphertexts, self.key.n_squared
        for index, ciphertext in zip(bins.tolist(), self.ciphertexts, strict=True):
            sums[index] = sums[index] * ciphertext % n_squared
        return outcome

    def take(self, indices: np.ndarray) -> EncryptedArray:
        """The ciphertexts at these places."""
        return replace(self, ciphertexts=self.ciphertexts[np.asarray(indices)])

    def rerandomized(self) -> EncryptedArray:
        """The same numbers in ciphertexts that say nothing about how they came to be, not even to the key's holder."""
        fresh = [c * self.key.uniform_zero() % self.key.n_squared for c in self.ciphertexts]
        return replace(self, ciphertexts=_objects(fresh))

    def packed(self) -> EncryptedArray:
        """Ciphertexts of one number each, brought together in as few as their bound allows.

        Packing one takes as many squarings as a slot has bits, decrypting one as many as the key has: histograms are
        packed before they are sent back. The last ciphertext's free slots hold zeros.

        Raises:
          EncodingError: They hold several numbers each already.
        """
        if self.slots.count != 1:
            raise EncodingError(f"these ciphertexts hold {self.slots.count} numbers each; only single ones are packed")
        bits = self.bound.bit_length() + 1
        slots = Slots(count=min(max(self.slots.bits // max(bits, 2), 1), MOST_SLOTS), bits=max(bits, 2))
        shift, n_squared = 1 << slots.bits, self.key.n_squared
        found = []
        for start in range(0, len(self), slots.count):
            total = gmpy2.mpz(1)
            for ciphertext in self.ciphertexts[start : start + slots.count][::-1]:
                total = gmpy2.powmod(total, shift, n_squared) * ciphertext % n_squared
            found.append(total)
        return replace(self, ciphertexts=_objects(found), slots=slots)

    def to_bytes(self) -> bytes:
        """For others, who read it with `from_bytes`."""
        width = self.key.ciphertext_bytes
        head = [
            *(_MAGIC, self.key.fingerprint, self.slots.count.to_bytes(2, "big"), self.slots.bits.to_bytes(2, "big")),
            *(self.fraction_bits.to_bytes(2, "big"), prefixed_int(self.bound), len(self).to_bytes(4, "big")),
        ]
        return b"".join([*head, *(int(c).to_bytes(width, "big") for c in self.ciphertexts)])

    @classmethod
    def from_bytes(cls, key: PublicKey, data: bytes, *, most: int) -> EncryptedArray:
        """An array that somebody sent.

        Args:
          key: The key under which it must be encrypted.
          data: The bytes.
          most: How many ciphertexts are expected at most.

        Raises:
          EncodingError: Of another key, cut short, too long, or with a number that is no ciphertext.
        """
        reader = Reader(data, "an encrypted array")
        reader.magic(_MAGIC)
        if reader.take(16) != key.fingerprint:
            raise EncodingError(f"an encrypted array of another key than {key!r}")
        count = reader.uint(2, low=1, high=MOST_SLOTS, name="slots")
        bits = reader.uint(2, low=2, high=key.bits, name="slot bits")
        fraction_bits = reader.uint(2, high=4096, name="fraction bits")
        bound = reader.prefixed_int(limit=_MOST_BOUND_BYTES, name="bound")
        length = reader.uint(4, high=most, name="number of ciphertexts")
        body = reader.take(length * key.ciphertext_bytes)
        reader.end()
        return cls(
            key=key,
            ciphertexts=_ciphertexts(key, body),
            slots=Slots(count=count, bits=bits),
            fraction_bits=fraction_bits,
            bound=bound,
        )

    def _require_like(self, other: EncryptedArray) -> None:
        if other.key != self.key:
            raise EncodingError(f"numbers encrypted under {self.key!r} and {other.key!r} can't be added")
        if (other.slots, other.fraction_bits) != (self.slots, self.fraction_bits):
            raise EncodingError(
                f"{self.slots.count} slots of {self.slots.bits} bits with {self.fraction_bits} fraction bits can't be "
                f"added to {other.slots.count} of {other.slots.bits} with {other.fraction_bits}"
            )
        if len(other) != len(self):
            raise EncodingError(f"{len(self)} encrypted numbers can't be added to {len(other)}")


def plaintexts(whole: np.ndarray, slots: Slots) -> list[int]:
    """Whole numbers `int64[n]`, or `[n, slots]`, as plaintexts.

    Raises:
      EncodingError: Another shape.
    """
    if slots.count == 1 and whole.ndim == 1:
        return [int(number) for number in whole.tolist()]
    if whole.ndim != 2 or whole.shape[1] != slots.count:
        raise EncodingError(f"numbers of shape {whole.shape} for {slots.count} slots a ciphertext")
    return [slots.packed(row) for row in whole.tolist()]


def require_array(values: np.ndarray) -> None:
    """Raises `SettingError` unless there is at least one number."""
    if np.asarray(values).size == 0:
        raise SettingError("values", "there is nothing to encrypt")


def _ciphertexts(key: PublicKey, body: bytes) -> np.ndarray:
    width = key.ciphertext_bytes
    numbers = [gmpy2.mpz(int.from_bytes(body[at : at + width], "big")) for at in range(0, len(body), width)]
    if any(not 0 < number < key.n_squared for number in numbers):
        raise EncodingError("an encrypted array holds a number that is not in [1, n²)")
    product = gmpy2.mpz(1)
    for number in numbers:  # invertible all, if their product is
        product = product * number % key.n
    if gmpy2.gcd(product, key.n) != 1:
        raise EncodingError("an encrypted array holds a number that shares a factor with the key's modulus")
    return _objects(numbers)


def _objects(numbers: list[Any]) -> np.ndarray:
    found = np.empty(len(numbers), dtype=object)
    found[:] = numbers
    return found
