"""BFV: exact sums of whole numbers, thousands in a ciphertext and several in each of its slots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hanse.core.errors import EncodingError, PipelineError
from hanse.crypto.additive import Estimate, KeySet
from hanse.crypto.big import gmpy2
from hanse.crypto.chunked import (
    MOST_SUMMANDS,
    ChunkedAdder,
    ChunkedSite,
    Limits,
    framed_bytes,
    keys_of,
    num_chunks,
    opened_public,
    opened_secret,
    require_whole,
)
from hanse.crypto.seal import DEGREE, FRESH_NOISE, SealVectors, context_of, secret_bytes, tenseal, without_secret

_MODULI = [60, 49]  # the ciphertexts' modulus, and SEAL's own for switching keys, which sums don't need
_MOST_BYTES = 68_000  # 65.7 KB are usual


@dataclass(frozen=True, kw_only=True)
class Bfv:
    """Exact sums of vectors of whole numbers by BFV (SEAL, through TenSEAL), at 128 bits of security.

    A ciphertext has 4,096 slots modulo a prime t, and each slot holds as many numbers as fit side by side, signs and
    sums included:

        k = ⌊(bits of t - 1) / b⌋        b = bits of (summands · limit) + 1

    t is as large as the errors allow: n fresh ciphertexts' errors add up to at most 22 n, and a sum decrypts to
    exactly the right numbers as long as that is below q / 2t, with q > 2^59.

    Args:
      summands: n, vectors that are added up at most, 1 to 1,000,000: the cohort.
      limit: Largest magnitude of a number, >= 1. 32,767 for numbers of 16 bits.

    Raises:
      PipelineError: The sum does not fit in the plain modulus.
      SettingError: A setting is out of range.

    References:
      Fan, Vercauteren 2012, IACR ePrint 2012/144; Brakerski 2012, IACR ePrint 2012/078.
    """

    summands: int
    limit: int = 32_767

    def __post_init__(self) -> None:
        require_whole("summands", self.summands, MOST_SUMMANDS)
        require_whole("limit", self.limit, (1 << 63) - 1)
        if self.lanes < 1:
            most = _most_summands(self.limit)
            raise PipelineError(
                f"BFV can't add up {self.summands:,} clients' numbers of up to {self.limit:,}: the sum needs a plain "
                f"modulus of {_number_bits(self.summands, self.limit) + 1} bits, and with so many clients it has "
                f"{_modulus_bits(self.summands)}",
                hint=f"at this limit {most:,} clients fit" if most else "lower the limit: fewer bits a number",
            )

    @property
    def name(self) -> str:
        """``bfv``."""
        return "bfv"

    @property
    def exact(self) -> bool:
        """True."""
        return True

    @property
    def lanes(self) -> int:
        """k, numbers side by side in a slot."""
        return (_modulus_bits(self.summands) - 1) // _number_bits(self.summands, self.limit)

    @cached_property
    def plain_modulus(self) -> int:
        """t, a prime that is 1 modulo 8,192, so that there are slots."""
        return _batching_prime(_modulus_bits(self.summands))

    def make_keys(self) -> KeySet:
        """As `AdditiveHE.make_keys`."""
        return keys_of(self.name, self._settings, b"", secret_bytes(self._context()))

    def site(self, secret: bytes) -> ChunkedSite:
        """As `AdditiveHE.site`."""
        key_id, _, own = opened_secret(secret, self.name, self._settings)
        cipher = _BfvCipher(context_of(own), self)
        try:  # a context of other parameters writes what ours can't read
            _BfvCipher(self._context(), self).load(cipher.dump(cipher.encrypt(np.zeros(cipher.values_per_chunk))))
        except EncodingError as error:
            raise EncodingError("a secret key of other parameters than the scheme's") from error
        return ChunkedSite(cipher, key_id, self._limits)

    def adder(self, public: bytes, size: int) -> ChunkedAdder:
        """As `AdditiveHE.adder`."""
        key_id, _ = opened_public(public, self.name, self._settings)
        context = without_secret(self._context())
        return ChunkedAdder(_BfvCipher(context, self), key_id, self._limits, size)

    def estimate(self, size: int) -> Estimate:
        """As `AdditiveHE.estimate`."""
        width = DEGREE * self.lanes
        chunks = num_chunks(size, width)
        return Estimate(
            chunks=chunks,
            values_per_chunk=width,
            bytes_each_way=chunks * framed_bytes(_MOST_BYTES),
            public_bytes=100,
            secret_bytes=65_000,
        )

    def _context(self) -> Any:
        return tenseal.context(
            tenseal.SCHEME_TYPE.BFV,
            DEGREE,
            plain_modulus=self.plain_modulus,
            coeff_mod_bit_sizes=_MODULI,
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
            n_threads=1,
        )

    @property
    def _settings(self) -> str:
        return f"summands={self.summands} limit={self.limit}"

    @property
    def _limits(self) -> Limits:
        return Limits(exact=True, summands=self.summands, limit=self.limit)


class _BfvCipher(SealVectors):
    """`ChunkCipher` for BFV."""

    def __init__(self, context: Any, scheme: Bfv) -> None:
        super().__init__(context, tenseal.bfv_vector_from, slots=DEGREE)
        self.lanes, self.number_bits = scheme.lanes, _number_bits(scheme.summands, scheme.limit)

    @property
    def values_per_chunk(self) -> int:
        return DEGREE * self.lanes

    @property
    def most_bytes(self) -> int:
        return _MOST_BYTES

    def encrypt(self, values: np.ndarray) -> Any:
        lanes = values.astype(np.int64, copy=False).reshape(self.lanes, DEGREE)
        packed = lanes[-1].copy()
        for lane in lanes[-2::-1]:
            packed <<= self.number_bits
            packed += lane
        return tenseal.bfv_vector(self.context, packed.tolist())

    def decrypt(self, ciphertext: Any) -> np.ndarray:
        rest = np.fromiter(ciphertext.decrypt(), dtype=np.int64, count=DEGREE)
        half, mask = 1 << (self.number_bits - 1), (1 << self.number_bits) - 1
        found = np.empty((self.lanes, DEGREE), dtype=np.int64)
        for lane in found:
            lane[:] = ((rest + half) & mask) - half
            rest = (rest - lane) >> self.number_bits
        if rest.any():
            raise EncodingError("a decrypted number is larger than its place: another key, or not what was encrypted")
        return found.ravel()


def _number_bits(summands: int, limit: int) -> int:
    """Bits of a sum, with its sign."""
    return (summands * limit).bit_length() + 1


def _modulus_bits(summands: int) -> int:
    """Bits of the largest plain modulus under which the errors of so many ciphertexts can't spoil a sum."""
    return _MODULI[0] - 2 - (FRESH_NOISE * summands).bit_length()


def _most_summands(limit: int) -> int:
    """How many numbers of this magnitude fit, by bisection."""
    low, high = 0, MOST_SUMMANDS
    while low < high:
        middle = (low + high + 1) // 2
        if _modulus_bits(middle) > _number_bits(middle, limit):
            low = middle
        else:
            high = middle - 1
    return low


@lru_cache(maxsize=8)
def _batching_prime(bits: int) -> int:
    """The second largest prime of so many bits that is 1 modulo twice the degree.

    SEAL takes the largest of them as moduli of ciphertexts, with which the plain modulus may have nothing in common.
    """
    candidate = ((1 << bits) - 1) // (2 * DEGREE) * (2 * DEGREE) + 1
    for _ in range(2):
        candidate -= 2 * DEGREE
        while not gmpy2.is_prime(candidate):
            candidate -= 2 * DEGREE
    return candidate
