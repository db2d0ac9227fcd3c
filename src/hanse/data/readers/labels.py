"""From labels as they stand in a file to class indices."""

from __future__ import annotations

import numpy as np

from hanse.core.errors import DataError


def class_indices(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices `[n]` of int64, and the classes' names in sorted order (numbers by value).

    Raises:
      DataError: A label is NaN or infinite.

    >>> class_indices(np.array([1.0, -1.0, 1.0]))
    (array([1, 0, 1]), ('-1', '1'))
    """
    values, indices = np.unique(labels, return_inverse=True)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("a class label is NaN or infinite")
    names = tuple(value if isinstance(value, str) else f"{value:.17g}" for value in values.tolist())
    return indices.astype(np.int64), names
