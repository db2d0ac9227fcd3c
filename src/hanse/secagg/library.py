"""The one place that knows whether the package `cryptography` is installed."""

from __future__ import annotations

from hanse.core.errors import MissingExtraError

try:
    import cryptography as cryptography
except ImportError as error:  # pragma: no cover - the tests have it
    raise MissingExtraError("a secure sum", extra="secagg") from error
