from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.units import format_bytes, format_gain, format_metric, format_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_996, "10.0 kB"), (999_600, "1.00 MB"), (2.5e15, "2.50 PB")],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9996, "1.0 s"), (59.96, "1 min 0 s"), (3599.6, "1 h 0 min"), (math.nan, "–"), (math.inf, "–")],
)
def test_seconds_round_into_the_next_unit(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 1.0, "100.0 %"),
        ("loss", 12345.678, "12,346"),
        ("loss", 3.2e-7, "3.200e-07"),
        ("loss", math.inf, "∞"),
        ("loss", -math.inf, "−∞"),
        ("accuracy", math.nan, "–"),
        ("r2", -0.25, "−0.2500"),
        ("loss", 0.0, "0"),
    ],
)
def test_metrics(metric: str, value: float, text: str) -> None:
    assert format_metric(metric, value) == text


def test_a_gain_too_small_to_print_has_no_sign() -> None:
    assert format_gain("accuracy", 0.0004) == "±0.0 points"
    assert format_gain("accuracy", -0.0006) == "−0.1 points"


@given(st.floats(min_value=1, max_value=1e17))
def test_bytes_keep_three_figures(count: float) -> None:
    number, unit = format_bytes(count).split(" ")
    scale = 1000.0 ** ["B", "kB", "MB", "GB", "TB", "PB"].index(unit)
    tolerance = 0.5 if unit == "B" else 0.006 * count / scale
    assert math.isclose(float(number.replace(",", "")), count / scale, abs_tol=tolerance)
