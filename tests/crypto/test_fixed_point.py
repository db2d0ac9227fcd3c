"""Fixed-point encoding: exact where it can be, refused where it can't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import EncodingError, NonFiniteUpdateError, SettingError
from hanse.crypto.fixed_point import FixedPoint, decoded


@given(st.lists(st.floats(-8, 8), min_size=1), st.integers(0, 49))
def test_within_half_a_step(values: list[float], bits: int) -> None:
    encoding = FixedPoint(fraction_bits=bits, limit=8)
    whole = encoding.encode(np.array(values))
    assert (np.abs(whole) <= encoding.bound).all()
    assert (np.abs(decoded(whole, bits) - values) <= 2.0 ** -(bits + 1)).all()
    assert (decoded(whole.astype(object), bits) == decoded(whole, bits)).all()


def test_sums_larger_than_a_float_are_decoded() -> None:
    huge = np.array([(1 << 200) + 1, -(1 << 200)], dtype=object)
    assert decoded(huge, 190).tolist() == [1024.0, -1024.0]


@pytest.mark.parametrize(
    ("bits", "limit"), [(-1, 1), (61, 1), (0, 0), (0, -1), (0, np.inf), (0, np.nan), (50, 9), (0, 0.5)]
)
def test_bad_settings(bits: int, limit: float) -> None:
    with pytest.raises(SettingError):
        FixedPoint(fraction_bits=bits, limit=limit)


def test_bad_values() -> None:
    encoding = FixedPoint(fraction_bits=4, limit=2)
    with pytest.raises(NonFiniteUpdateError):
        encoding.encode(np.array([1.0, np.nan]))
    with pytest.raises(EncodingError, match="nothing was encrypted"):
        encoding.encode(np.array([2.01]))
