"""CKKS: sums of real numbers with a small error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hanse.core.errors import EncodingError, PipelineError, SettingError
from hanse.crypto.additive import Estimate, KeySet
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
from hanse.crypto.seal import DEGREE, SealVectors, context_of, secret_bytes, tenseal, without_secret

_MODULI = [54, 55]
_MOST_BYTES = 64_000  # 61.7 KB are usual
_LEAST_SCALE, _MOST_SCALE = 20, 45
_SIGMA = 3.24  # standard deviation of a coefficient's error: a centred binomial of 42 coins


@dataclass(frozen=True, kw_only=True)
class Ckks:
    """Approximate sums of vectors of real numbers by CKKS (SEAL, through TenSEAL), at 128 bits of security.

    A ciphertext has 2,048 slots. The scale is the largest power of two, up to 2^45, at which n numbers of magnitude
    `limit` stay below half the modulus. Errors of n fresh ciphertexts leave each slot with a standard deviation of
    about 3.24 √(2048 n) / scale.

    Whoever sees both a ciphertext and its decryption can compute the secret key from the error (Li, Micciancio 2021).
    So the decrypted sum must stay with those who hold the key: it may not go back to the server. Where it has to, take
    `Bfv`, whose sums are exact.

    Args:
      summands: n, vectors that are added up at most, 1 to 1,000,000.
      limit: Largest magnitude of a number, > 0.

    Raises:
      PipelineError: The sum does not fit.
      SettingError: A setting is out of range.

    References:
      Cheon, Kim, Kim, Song 2017, IACR ePrint 2016/421; Li, Micciancio 2021, IACR ePrint 2020/1533.
    """

    summands: int
    limit: float = 8.0

    def __post_init__(self) -> None:
        require_whole("summands", self.summands, MOST_SUMMANDS)
        if not 0 < self.limit < math.inf:
            raise SettingError("limit", f"must be above 0 and finite, got {self.limit}")
        if self.scale_bits < _LEAST_SCALE:
            raise PipelineError(
                f"CKKS can't add up {self.summands:,} clients' numbers of up to {self.limit:g}: only "
                f"{max(self.scale_bits, 0)} bits would be left for what is behind the point",
                hint="scale the numbers down; a sum may reach 2^31",
            )

    @property
    def name(self) -> str:
        """``ckks``."""
        return "ckks"

    @property
    def exact(self) -> bool:
        """False."""
        return False

    @property
    def scale_bits(self) -> int:
        """Bits of the scale."""
        return min(_MODULI[0] - 3 - math.ceil(math.log2(self.summands * self.limit)), _MOST_SCALE)

    @property
    def error(self) -> float:
        """Standard deviation of a sum's error, in the unit of the numbers."""
        return _SIGMA * math.sqrt(DEGREE / 2 * self.summands) / 2.0**self.scale_bits

    def make_keys(self) -> KeySet:
        """As `AdditiveHE.make_keys`."""
        return keys_of(self.name, self._settings, b"", secret_bytes(self._context()))

    def site(self, secret: bytes) -> ChunkedSite:
        """As `AdditiveHE.site`."""
        key_id, _, own = opened_secret(secret, self.name, self._settings)
        context = context_of(own)
        try:  # a context of other parameters writes what ours can't read
            context.global_scale = 2.0**self.scale_bits
            cipher = _CkksCipher(context, self)
            _CkksCipher(self._context(), self).load(cipher.dump(cipher.encrypt(np.zeros(cipher.values_per_chunk))))
        except (EncodingError, ValueError, RuntimeError) as error:
            raise EncodingError("a secret key of other parameters than the scheme's") from error
        return ChunkedSite(cipher, key_id, self._limits)

    def adder(self, public: bytes, size: int) -> ChunkedAdder:
        """As `AdditiveHE.adder`."""
        key_id, _ = opened_public(public, self.name, self._settings)
        context = without_secret(self._context())
        return ChunkedAdder(_CkksCipher(context, self), key_id, self._limits, size)

    def estimate(self, size: int) -> Estimate:
        """As `AdditiveHE.estimate`."""
        chunks = num_chunks(size, DEGREE // 2)
        return Estimate(
            chunks=chunks,
            values_per_chunk=DEGREE // 2,
            bytes_each_way=chunks * framed_bytes(_MOST_BYTES),
            public_bytes=100,
            secret_bytes=65_000,
        )

    def _context(self) -> Any:
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            DEGREE,
            coeff_mod_bit_sizes=_MODULI,
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
            n_threads=1,
        )
        context.global_scale = 2.0**self.scale_bits
        return context

    @property
    def _settings(self) -> str:
        return f"summands={self.summands} limit={float(self.limit)!r}"

    @property
    def _limits(self) -> Limits:
        return Limits(exact=False, summands=self.summands, limit=self.limit)


class _CkksCipher(SealVectors):
    """`ChunkCipher` for CKKS."""

    def __init__(self, context: Any, scheme: Ckks) -> None:
        super().__init__(context, tenseal.ckks_vector_from, slots=DEGREE // 2, scale=2.0**scheme.scale_bits)

    @property
    def values_per_chunk(self) -> int:
        return DEGREE // 2

    @property
    def most_bytes(self) -> int:
        return _MOST_BYTES

    def encrypt(self, values: np.ndarray) -> Any:
        return tenseal.ckks_vector(self.context, values.tolist())

    def decrypt(self, ciphertext: Any) -> np.ndarray:
        return np.fromiter(ciphertext.decrypt(), dtype=np.float64, count=DEGREE // 2)
