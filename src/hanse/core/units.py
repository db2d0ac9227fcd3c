"""Figures as people read them: bytes, seconds, counts and metric values with their units."""

from __future__ import annotations

import math
from typing import Literal

MISSING = "–"
"""What stands where there is no value."""

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_LOWER_IS_BETTER = ("loss", "error", "error_rate", "mse", "rmse", "mae", "mape", "nll", "perplexity", "brier")
_SHARES = ("accuracy", "precision", "recall", "sensitivity", "specificity", "f1", "error_rate")


def format_bytes(count: float) -> str:
    """Bytes in decimal units, three figures.

    >>> format_bytes(999), format_bytes(1_234_567), format_bytes(20_500_000_000)
    ('999 B', '1.23 MB', '20.5 GB')
    """
    divisor, unit = byte_unit(count)
    scaled = count / divisor
    if unit == "B":
        return f"{scaled:,.0f} B"
    return f"{scaled:,.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"


def byte_unit(largest: float) -> tuple[float, str]:
    """The divisor and name of the unit that suits values up to `largest` bytes.

    >>> byte_unit(3_000_000)
    (1000000.0, 'MB')
    """
    power = 0
    while abs(largest) >= 999.5 * 1000.0**power and power < len(_BYTE_UNITS) - 1:
        power += 1
    return 1000.0**power, _BYTE_UNITS[power]


def format_seconds(seconds: float) -> str:
    """A duration, at the precision a person can use.

    >>> [format_seconds(s) for s in (0.0123, 4.56, 59.97, 75, 7_385)]
    ['12 ms', '4.6 s', '1 min 0 s', '1 min 15 s', '2 h 3 min']
    """
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def format_count(count: int) -> str:
    """A whole number with thousands separated.

    >>> format_count(1663370)
    '1,663,370'
    """
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """A count and its noun, in the right number.

    >>> plural(1, "client"), plural(1200, "round")
    ('1 client', '1,200 rounds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of examples, which people read in per cent.

    >>> is_share("balanced_accuracy"), is_share("loss")
    (True, False)
    """
    return any(metric == name or metric.endswith(("_" + name, "-" + name)) for name in _SHARES)


def better_of(metric: str) -> Literal["max", "min"]:
    """Which way a metric of this name is better; ``"max"`` for a name that says nothing.

    >>> better_of("test_loss"), better_of("auc")
    ('min', 'max')
    """
    lower = any(metric == name or metric.endswith("_" + name) for name in _LOWER_IS_BETTER)
    return "min" if lower else "max"


def format_metric(metric: str, value: float | None) -> str:
    """A metric's value: shares in per cent, others with four significant figures.

    >>> format_metric("accuracy", 0.9731), format_metric("loss", 0.08123), format_metric("loss", None)
    ('97.3 %', '0.08123', '–')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return _significant(value)


def format_gain(metric: str, gain: float | None) -> str:
    """A difference of a metric, signed: shares in percentage points.

    >>> format_gain("accuracy", 0.0431), format_gain("rmse", -1.5), format_gain("accuracy", 0.0)
    ('+4.3 points', '−1.500', '±0.0 points')
    """
    if gain is None or not math.isfinite(gain):
        return MISSING
    text = f"{100 * abs(gain):.1f} points" if is_share(metric) else _significant(abs(gain))
    zero = not any(digit in text for digit in "123456789")
    return ("±" if zero else "+" if gain > 0 else "−") + text


def _significant(value: float) -> str:
    """Four significant figures, thousands separated, powers of ten only where they are needed."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-4 or size >= 1e9:
        return f"{value:.3e}"
    decimals = max(0, 3 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}".replace("-", "−")
