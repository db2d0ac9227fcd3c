"""The svmlight (LIBSVM) text format, into a dense array."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hanse.core.errors import DataError
from hanse.data.readers.files import existing

MAX_BYTES = 4 << 30
"""Largest dense array that is made of a sparse file."""


def read_svmlight(path: Path | str, *, num_features: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read lines of ``label index:value index:value … # comment``; a leading ``@id`` is passed over.

    Indices count from 1; a file that uses index 0 counts from 0. Values that are not there are 0.

    Args:
      path: The file.
      num_features: d; None takes the largest index. Give it where a test file may lack the last ones.

    Returns:
      Inputs, float32 `[n, d]`, and labels as they stand, float64 `[n]`.

    Raises:
      DataNotFoundError: There is no such file.
      DataError: A line can't be read, an index is out of range or not increasing, no line holds
        data, or the dense array would pass 4 GiB.
    """
    path = existing(path)
    labels: list[float] = []
    lengths: list[int] = []
    indices: list[int] = []
    values: list[float] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            tokens = line.split("#", 1)[0].split()
            if tokens and tokens[0].startswith("@"):
                del tokens[0]
            if not tokens:
                continue
            before = len(indices)
            _parse(tokens, f"{path}, line {number}", labels, indices, values)
            lengths.append(len(indices) - before)
    if not labels:
        raise DataError(f"{path} holds no rows")
    return _dense(path, np.array(lengths), np.array(indices, dtype=np.int64), np.array(values), num_features), np.array(
        labels
    )


def _parse(tokens: list[str], where: str, labels: list[float], indices: list[int], values: list[float]) -> None:
    try:
        labels.append(float(tokens[0]))
    except ValueError:
        raise DataError(f"{where}: {tokens[0]!r} is not a label, which has to be a number") from None
    last = -1
    for token in tokens[1:]:
        name, colon, value = token.partition(":")
        if name == "qid":
            continue
        try:
            index, amount = int(name), float(value)
        except ValueError:
            raise DataError(f"{where}: {token!r} is not `index:value`", hint="is this an svmlight file?") from None
        if not colon or index <= last:
            raise DataError(f"{where}: index {index} comes after {last}; indices have to increase")
        last = index
        indices.append(index)
        values.append(amount)


def _dense(
    path: Path, lengths: np.ndarray, indices: np.ndarray, values: np.ndarray, num_features: int | None
) -> np.ndarray:
    first = 0 if len(indices) and indices.min() == 0 else 1
    found = int(indices.max(initial=first - 1)) - first + 1
    width = found if num_features is None else num_features
    if found > width:
        raise DataError(f"{path} has an index {found - 1 + first} where {width} features were wanted")
    if len(lengths) * width * 4 > MAX_BYTES:
        raise DataError(
            f"{path}: {len(lengths):,} rows of {width:,} features would be a dense array of more than 4 GiB"
        )
    x = np.zeros((len(lengths), width), dtype=np.float32)
    x[np.repeat(np.arange(len(lengths)), lengths), indices - first] = values
    return x
