"""What BFV and CKKS share: SEAL's contexts and vectors, by TenSEAL, and the limits within which they are safe.

Keys are symmetric: every site has the secret one, so nothing need be published to encrypt, ciphertexts carry a
smaller error, and the public part is a name. SEAL itself refuses parameters below 128 bits of security: with
polynomials of 4,096 coefficients its moduli may have 109 bits together, as the standard's table for ternary secrets
says.

References:
  Albrecht et al. 2018, "Homomorphic Encryption Security Standard", HomomorphicEncryption.org, table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hanse.core.errors import EncodingError, MissingExtraError

try:
    import tenseal
except ImportError as error:
    raise MissingExtraError("homomorphic encryption by TenSEAL", extra="he") from error

__all__ = ["DEGREE", "FRESH_NOISE", "SealVectors", "context_of", "secret_bytes", "tenseal", "without_secret"]

DEGREE = 4096
"""Coefficients of a polynomial."""

FRESH_NOISE = 22
"""A fresh symmetric ciphertext's error is at most this: SEAL's centred binomial of 42 coins, and a rounding."""


class SealVectors:
    """Ciphertexts of one context: loads them strictly, adds them, writes them.

    Args:
      context: TenSEAL's context, with or without a secret key.
      from_bytes: TenSEAL's function that reads a vector.
      slots: Numbers in a ciphertext.
      scale: What a ciphertext's scale must be.
    """

    def __init__(
        self, context: Any, from_bytes: Callable[[Any, bytes], Any], *, slots: int, scale: float | None = None
    ) -> None:
        self.context, self.slots = context, slots
        self._from_bytes, self._scale = from_bytes, scale

    def load(self, body: bytes) -> Any:
        """One ciphertext from outside; SEAL checks that it belongs to the parameters and that all its residues are."""
        try:
            vector = self._from_bytes(self.context, body)
            ciphertexts = vector.ciphertext()  # copies
            shape = (vector.size(), len(ciphertexts))
            polynomials = ciphertexts[0].size() if shape[1] == 1 else 0
        except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
            raise EncodingError(f"a ciphertext that SEAL refuses: {error}") from error
        if shape != (self.slots, 1) or polynomials != 2:
            raise EncodingError(
                f"a message of {shape[1]} ciphertexts for {shape[0]} numbers; wanted one for {self.slots}"
            )
        if self._scale is not None and ciphertexts[0].scale != self._scale:
            raise EncodingError("a ciphertext of another scale")
        return vector

    def add(self, left: Any, right: Any) -> Any:
        """In place in `left`."""
        return left.add_(right)

    def dump(self, vector: Any) -> bytes:
        """What `load` reads."""
        return bytes(vector.serialize())


def secret_bytes(context: Any) -> bytes:
    """A context with its secret key and nothing that can be made from it."""
    return _written(context, secret=True)


def without_secret(context: Any) -> Any:
    """A context of the same parameters that can add and nothing else."""
    return tenseal.context_from(_written(context, secret=False), 1)


def _written(context: Any, *, secret: bool) -> bytes:
    return bytes(
        context.serialize(save_public_key=False, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False)
    )


def context_of(secret: bytes) -> Any:
    """The context that `secret_bytes` wrote; raises `EncodingError` if it holds no secret key.

    Only bytes that their sender has signed belong here (`key_transport.unwrap_key`): SEAL's checks of keys are no more
    than of form.
    """
    try:
        context = tenseal.context_from(secret, 1)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise EncodingError(f"a secret key that SEAL refuses: {error}") from error
    if not context.has_secret_key():
        raise EncodingError("a context without a secret key can't decrypt")
    return context
