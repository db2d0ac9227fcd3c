"""Checks that partitioners share: settings in range, labels to split by, enough rows."""

from __future__ import annotations

import math

import numpy as np

from hanse.core.errors import DataError, SettingError
from hanse.data.dataset import Dataset


def require_whole(name: str, value: int, *, least: int) -> None:
    """A whole number of at least `least`.

    Raises:
      SettingError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SettingError(f"partition.{name}", f"got {value!r}; wanted a whole number of at least {least}")


def require_positive(name: str, value: float, *, zero: bool = False) -> None:
    """A finite number above 0, or from 0 up where `zero` says so.

    Raises:
      SettingError: It is something else.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise SettingError(
            f"partition.{name}", f"got {value!r}; wanted a number {'of at least' if zero else 'above'} 0"
        )


def require_rows(dataset: Dataset, needed: int, what: str) -> None:
    """At least `needed` training rows.

    Raises:
      DataError: There are fewer.
    """
    if len(dataset.train) < needed:
        raise DataError(
            f"data set `{dataset.name}` has {len(dataset.train):,} training rows; {what} needs at least {needed:,}",
            hint="fewer clients, or a smaller minimum for each",
        )


def require_labels(dataset: Dataset) -> None:
    """One label, or one number, for each row.

    Raises:
      DataError: The targets are tokens or vectors.
    """
    if dataset.target == "next_token" or dataset.train.y.ndim != 1:
        raise DataError(
            f"data set `{dataset.name}` has no single label for each row, so it can't be split by label",
            hint="use `natural`, `iid` or `quantity`",
        )


def strata(dataset: Dataset, bins: int) -> tuple[np.ndarray, int]:
    """What label skew is about: class indices, or for a number the bin it falls in.

    Bins are quantiles of the training targets, so they hold about equally many rows; a value
    that stands very often makes a bin of its own and there are fewer.

    Args:
      dataset: With targets `[n]`.
      bins: Number of quantile bins for numeric targets, at least 1.

    Returns:
      Labels `[n]` of int64, and how many different ones there can be.

    Raises:
      DataError: The targets are tokens, which have no one label a row.
    """
    require_labels(dataset)
    y = dataset.train.y
    if dataset.target == "classes":
        return y.astype(np.int64, copy=False), dataset.num_classes
    edges = np.unique(np.quantile(y, np.linspace(0, 1, bins + 1)[1:-1])) if len(y) else np.zeros(0)
    return np.searchsorted(edges, y, side="right").astype(np.int64), len(edges) + 1


def proportional_cuts(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole sizes that add up to `total` and follow `shares`, each within one of its share.

    Cuts `0 … total` at the rounded-down running sums, as NIID-Bench does.

    >>> proportional_cuts(np.array([0.5, 0.3, 0.2]), 10)
    array([5, 3, 2])
    """
    # 1e-9: 0.3 + 0.6 + 0.1 must not lose a row to the last bit of a float
    inner = np.floor(np.cumsum(shares[:-1]) * total + 1e-9).astype(np.int64)
    return np.diff(np.concatenate([[0], np.minimum(inner, total), [total]]))
