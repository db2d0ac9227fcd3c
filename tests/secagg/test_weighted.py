"""Weighted means by whole numbers: right on average, exact where they can be, and never wrapped around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import NonFiniteUpdateError, PipelineError, SecureSumError, SettingError, SpecMismatchError
from hanse.secagg import sum_in_process
from hanse.secagg.weighted import WeightedEncoding
from tests.secagg.parties import make_terms, names, source


def test_the_weighted_mean_through_the_whole_protocol() -> None:
    encoding = WeightedEncoding(length=50, range=2.0, cohort=4, most_weight=100, bits=40)
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-2, 2, (4, 50))
    weights = [1, 100, 0, 37]
    inputs = {n: encoding.encode(vectors[i], weights[i], rng) for i, n in enumerate(names(4))}
    total = sum_in_process(make_terms(4, layout=encoding.layout), inputs, source).total
    mean, weight = encoding.mean(total.words)
    assert weight == sum(weights)
    expected = np.average(vectors, axis=0, weights=weights)
    np.testing.assert_allclose(mean, expected, atol=2.0 / encoding.levels)


@given(st.integers(1, 20), st.integers(1, 1000), st.sampled_from([-1.0, 1.0]))
@settings(deadline=None, max_examples=50)
def test_the_largest_inputs_do_not_wrap_around(cohort: int, weight: int, sign: float) -> None:
    bits = (cohort * weight).bit_length() + 1
    encoding = WeightedEncoding(length=1, range=3.0, cohort=cohort, most_weight=weight, bits=bits)
    one = encoding.encode(np.array([sign * 99.0]), weight, np.random.default_rng(0))
    total = encoding.layout.zeros()
    for _ in range(cohort):
        encoding.layout.add_packed(total, encoding.layout.pack(encoding.layout.words_of(one)))
    encoding.layout.reduce(total)
    mean, found = encoding.mean(total)
    assert found == cohort * weight
    np.testing.assert_allclose(mean, [sign * 3.0])


def test_rounding_is_right_on_average() -> None:
    """200,000 roundings of one number to steps of 1/7: five standard deviations; one seed in two million fails."""
    encoding = WeightedEncoding(length=200_000, range=1.0, cohort=1, most_weight=1, bits=4)
    assert encoding.levels == 7
    mean, _ = encoding.mean(
        encoding.layout.words_of(encoding.encode(np.full(200_000, 0.3), 1, np.random.default_rng(1)))
    )
    assert abs(mean.mean() - 0.3) < 5 * (1 / 14) / np.sqrt(200_000)


def test_what_can_not_be_encoded_is_refused() -> None:
    with pytest.raises(PipelineError, match="does not fit in 8 bits") as caught:
        WeightedEncoding(length=1, range=1.0, cohort=10, most_weight=100, bits=8)
    assert "use bits = 11" in str(caught.value)
    WeightedEncoding(length=1, range=1.0, cohort=10, most_weight=100, bits=11)
    encoding = WeightedEncoding(length=2, range=1.0, cohort=2, most_weight=5)
    rng = np.random.default_rng(0)
    with pytest.raises(NonFiniteUpdateError):
        encoding.encode(np.array([0.0, np.nan]), 1, rng)
    with pytest.raises(SpecMismatchError):
        encoding.encode(np.zeros(3), 1, rng)
    for weight in (-1, 6, 1.5):
        with pytest.raises(SettingError, match="whole number from 0 to 5"):
            encoding.encode(np.zeros(2), weight, rng)  # type: ignore[arg-type]
    with pytest.raises(SecureSumError, match="all weights"):
        encoding.mean(encoding.layout.zeros())
    for wrong in ({"range": 0.0}, {"bits": 64}, {"cohort": 0}):
        with pytest.raises(SettingError):
            WeightedEncoding(**{"length": 1, "range": 1.0, "cohort": 1, "most_weight": 1, **wrong})  # type: ignore[arg-type]
