"""Metrics from additive sums: the sums of clients, added up, give the metrics of the pooled examples exactly.

No metric is ever NaN for want of examples: one that is undefined (no example at all, a class that does not occur,
targets that do not vary) is left out.
"""

from __future__ import annotations

import math

from hanse.core.messages import Sums

MAX_COUNTED_CLASSES = 20
"""Up to this many classes, hits and misses are counted per class."""

EXTRA = "mean/"
"""Prefix of a user's own sums: `mean/NAME` is divided by `count` and reported as `NAME`."""

_LARGEST_EXPONENT = 700.0
# a variance below this share of the mean square is rounding error of Σy² − (Σy)²/n, not spread
_SPREAD_RESOLUTION = 1e-12


def mean_metrics(sums: Sums) -> dict[str, float]:
    """Every sum but `count`, divided by `count`: metric `NAME` from sum `NAME` or `mean/NAME`.

    >>> mean_metrics({"loss": 3.0, "mean/hits": 1.0, "count": 2.0})
    {'loss': 1.5, 'hits': 0.5}
    """
    count = sums.get("count", 0.0)
    if not count:
        return {}
    return {name.removeprefix(EXTRA): value / count for name, value in sums.items() if name != "count"}


def class_metrics(sums: Sums) -> dict[str, float]:
    """Loss and accuracy; with counts per class also balanced accuracy and macro F1; for two classes, both recalls.

    With tp, fp, fn the counts of a class:

        balanced_accuracy = mean of tp / (tp + fn)            over classes that occur among the labels
        macro_f1          = mean of 2 tp / (2 tp + fp + fn)   over classes among labels or predictions

    For two classes, class 1 is the positive one: `sensitivity` is its recall and `specificity` that of class 0,
    each left out where no example has that class. These are scikit-learn's definitions with its defaults.

    Args:
      sums: `loss`, `count`, `correct`, and up to 20 classes `tp/c`, `fp/c`, `fn/c`.

    >>> class_metrics({"loss": 2.0, "count": 4.0, "correct": 3.0})
    {'loss': 0.5, 'accuracy': 0.75}
    """
    count = sums.get("count", 0.0)
    if not count:
        return {}
    found = {"loss": sums["loss"] / count, "accuracy": sums["correct"] / count}
    hits, false_alarms, misses = (_family(sums, name) for name in ("tp", "fp", "fn"))
    if hits:
        recalls = [tp / (tp + fn) if tp + fn else None for tp, fn in zip(hits, misses, strict=True)]
        found["balanced_accuracy"] = _mean([recall for recall in recalls if recall is not None])
        found["macro_f1"] = _mean(
            [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in zip(hits, false_alarms, misses, strict=True) if tp + fp + fn]
        )
        if len(recalls) == 2:
            named = {"sensitivity": recalls[1], "specificity": recalls[0]}
            found |= {name: recall for name, recall in named.items() if recall is not None}
    return found | _extra(sums, count)


def token_metrics(sums: Sums) -> dict[str, float]:
    """Loss and accuracy a token, and `perplexity = exp(loss)`, bounded at e^700 so that it stays a number.

    >>> token_metrics({"loss": 0.0, "count": 5.0, "correct": 5.0})
    {'loss': 0.0, 'accuracy': 1.0, 'perplexity': 1.0}
    """
    count = sums.get("count", 0.0)
    if not count:
        return {}
    loss = sums["loss"] / count
    found = {"loss": loss, "accuracy": sums["correct"] / count, "perplexity": math.exp(min(loss, _LARGEST_EXPONENT))}
    return found | _extra(sums, count)


def number_metrics(sums: Sums) -> dict[str, float]:
    """Training loss, mean squared and absolute error, their root, and the coefficient of determination.

        r2 = 1 − Σ (y − ŷ)² / (Σ y² − (Σ y)² / n)

    With several targets an example, errors are means over them all and `r2` is the mean of their own values.
    `r2` leaves out targets that do not vary. The difference of sums loses digits where the spread of y is small
    beside its mean: a spread below 1e-6 of the root mean square counts as none.

    Args:
      sums: `loss`, `count`, `squared_error`, `absolute_error`, `y`, `y_squared`; with k > 1 targets an example the
        last four are `squared_error/0`, … each.

    >>> number_metrics({"loss": 2.0, "count": 2, "squared_error": 2.0, "absolute_error": 2.0, "y": 4, "y_squared": 10})
    {'loss': 1.0, 'mse': 1.0, 'rmse': 1.0, 'mae': 1.0, 'r2': 0.0}
    """
    count = sums.get("count", 0.0)
    if not count:
        return {}
    squares, absolutes, totals, total_squares = (
        _family(sums, name) for name in ("squared_error", "absolute_error", "y", "y_squared")
    )
    mse = _mean(squares) / count
    found = {"loss": sums["loss"] / count, "mse": mse, "rmse": math.sqrt(mse), "mae": _mean(absolutes) / count}
    shares = []
    for error, total, square in zip(squares, totals, total_squares, strict=True):
        spread = square - total * total / count
        if spread > _SPREAD_RESOLUTION * square:
            shares.append(1 - error / spread)
    if shares:
        found["r2"] = _mean(shares)
    return found | _extra(sums, count)


def _family(sums: Sums, name: str) -> list[float]:
    """The sums `name/0`, `name/1`, …, or `name` alone, or nothing."""
    if name in sums:
        return [sums[name]]
    found: list[float] = []
    while (key := f"{name}/{len(found)}") in sums:
        found.append(sums[key])
    return found


def _extra(sums: Sums, count: float) -> dict[str, float]:
    return {name.removeprefix(EXTRA): value / count for name, value in sums.items() if name.startswith(EXTRA)}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
