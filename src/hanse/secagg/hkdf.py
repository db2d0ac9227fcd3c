"""HKDF with SHA-256: from a shared secret to keys, each for one purpose."""

from __future__ import annotations

import hmac

_HASH_BYTES = 32


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, *, length: int = 32) -> bytes:
    """Keys from a secret: extract with `salt`, expand with `info`.

    Args:
      secret: Input keying material, for example what X25519 gives.
      salt: What the keys are bound to; here a transcript's digest.
      info: What they are for.
      length: Bytes wanted, at most 255 × 32.

    References:
      Krawczyk, Eronen 2010, RFC 5869.

    >>> hkdf_sha256(b"secret", b"salt", b"mask", length=4).hex()
    'bd12c8d3'
    """
    key = hmac.digest(salt or bytes(_HASH_BYTES), secret, "sha256")
    block = b""
    found = b""
    for counter in range(1, -(-length // _HASH_BYTES) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        found += block
    return found[:length]
