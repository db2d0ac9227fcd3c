"""Values by their bits, so that purity can be checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from hanse.core.params import Params


def fingerprint(value: Any) -> Hashable:
    """Equal for values of equal bits: `Params`, arrays, dataclasses, mappings, sequences, plain values.

    >>> fingerprint({"a": np.zeros(2)}) == fingerprint({"a": np.zeros(2)}) != fingerprint({"a": np.ones(2)})
    True
    """
    if isinstance(value, Params):
        return ("params", value.spec, value.numpy().dtype.name, value.sha256())
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.name, value.shape, value.tobytes())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = ((f.name, fingerprint(getattr(value, f.name))) for f in dataclasses.fields(value))
        return (type(value).__qualname__, *parts)
    if isinstance(value, Mapping):
        return ("mapping", *((name, fingerprint(part)) for name, part in value.items()))
    if isinstance(value, list | tuple):
        return ("sequence", *(fingerprint(part) for part in value))
    return value if isinstance(value, Hashable) else repr(value)


def close(left: Params, right: Params, tolerance: float) -> bool:
    """Whether two vectors agree to `tolerance`, relative to the larger one's norm."""
    scale = max(left.l2_norm(), right.l2_norm(), 1e-30)
    return left.spec == right.spec and (left - right).l2_norm() <= tolerance * scale


def require(condition: bool, sentence: str) -> None:
    """Raise AssertionError with a sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)
