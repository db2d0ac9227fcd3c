"""X25519: two parties that know each other's public keys share a secret that nobody else knows."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

KEY_BYTES = 32
"""Bytes of a private key, of a public key, and of a shared secret."""


class AgreementKey:
    """A private key, ready for many agreements: making one costs as much as an agreement. `repr` does not show it.

    Args:
      private: 32 bytes, which are clamped as RFC 7748 says.

    References:
      Langley, Hamburg, Turner 2016, RFC 7748, sections 5 and 6.1.
    """

    def __init__(self, private: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The shared secret, 32 bytes; not uniform, so it goes through `hkdf_sha256` before use.

        Raises:
          ValueError: `public` has another length, or is one of the few points that give everybody the same secret.
        """
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))


_PROBE = AgreementKey(bytes(range(KEY_BYTES)))


def is_usable(public: bytes) -> bool:
    """Whether agreeing with this public key gives a secret at all.

    >>> is_usable(bytes(32)), is_usable(AgreementKey(bytes(range(32))).public)
    (False, True)
    """
    try:
        _PROBE.agree(public)
    except ValueError:
        return False
    return True
