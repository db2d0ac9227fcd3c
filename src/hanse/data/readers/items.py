"""A data set from anything with a length and pairs by position, such as a torch `Dataset`."""

from __future__ import annotations

from typing import Any

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.readers.arrays import dataset_from_arrays, to_array
from hanse.data.readers.encode import About, Kind


def dataset_from_items(
    items: Any, *, test: Any | None = None, about: About | None = None, kind: Kind = "auto"
) -> Dataset:
    """Read every pair `(x, y)` once into arrays; items may be tensors, arrays, numbers or PIL images.

    Images (PIL, or bytes `[height, width, channels]`) become float32 `[channels, height, width]` in [0, 1].
    A random transform in the data set is drawn once, here, and not again in every epoch.

    Args:
      items: Has `__len__` and `__getitem__`, as `torch.utils.data.Dataset` and a list of pairs do.
      test: The same for an official test set.
      about: Name and provenance.
      kind: As for `dataset_from_arrays`.

    Raises:
      DataError: It is empty, an item is not a pair, or items differ in shape.
    """
    own = _read(items, "item")
    theirs = None if test is None else _read(test, "test item")
    return dataset_from_arrays(*own, about=about or About(name=type(items).__name__), kind=kind, test=theirs)


def _read(items: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    count = len(items)
    if not count:
        raise DataError(f"a data set without a single {what} can't be used")
    x: np.ndarray | None = None
    targets: list[np.ndarray] = []
    for i in range(count):
        value, target = _pair(items[i], f"{what} {i}")
        if x is None:
            x = np.empty((count, *value.shape), dtype=value.dtype)
        if value.shape != x.shape[1:]:
            raise DataError(
                f"{what} {i} has shape {list(value.shape)}, the first one {list(x.shape[1:])}",
                hint="resize or pad the items to one shape",
            )
        x[i] = value
        targets.append(target)
    assert x is not None
    return x, np.stack(targets)


def _pair(item: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        value, target = item
    except (TypeError, ValueError):
        raise DataError(f"{where} is not a pair (x, y) but {type(item).__name__}") from None
    return _input(value), to_array(target)


def _input(value: Any) -> np.ndarray:
    array = to_array(value)
    if hasattr(value, "getbands"):  # a PIL image
        array = array[:, :, None] if array.ndim == 2 else array
        return np.moveaxis(array.astype(np.float32) / np.float32(255), -1, 0)
    return array
