"""GMP's integers, or a sentence that says what to install."""

from __future__ import annotations

from hanse.core.errors import MissingExtraError

try:
    import gmpy2
except ImportError as error:
    raise MissingExtraError("homomorphic encryption", extra="he") from error

__all__ = ["gmpy2"]
