"""pandas data frames, recognised by what they can do: pandas itself is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.readers.encode import About, Columns, dataset_from_table
from hanse.data.readers.table import Table


def dataset_from_frame(frame: Any, columns: Columns, *, about: About | None = None, test: Any | None = None) -> Dataset:
    """A data set from a data frame, as `dataset_from_table` makes one.

    Args:
      frame: The training rows, a `pandas.DataFrame`.
      columns: Which column is the target, which name clients, and how text is encoded.
      about: Name and provenance.
      test: A data frame of the same columns with the official test set, or None.

    Raises:
      DataError: A frame has no rows or unusable columns, or a named column is missing.
    """
    rest = None if test is None else read_dataframe(test, source="the test data frame")
    return dataset_from_table(read_dataframe(frame), columns, about=about or About(name="data_frame"), test=rest)


def read_dataframe(frame: Any, *, source: str = "the data frame") -> Table:
    """Columns of a data frame (the index is left out): numbers stay numbers, text and categories text.

    Args:
      frame: Anything with `columns` and one series for each (`pandas.DataFrame`).
      source: What to call it in messages.

    Raises:
      DataError: It has no rows, or a column is neither numeric, boolean nor text.
    """
    names = tuple(str(name) for name in frame.columns)
    columns = tuple(_column(frame.iloc[:, i], f"{source}, column `{name}`") for i, name in enumerate(names))
    table = Table(names, columns, source)
    if not len(table):
        raise DataError(f"{source} holds no rows")
    return table


def _column(series: Any, where: str) -> np.ndarray:
    missing = series.isna().to_numpy()
    kind = getattr(series.dtype, "kind", "O")
    if kind in "biuf":
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    values = series.astype(object).to_numpy()
    strange = [value for value in values[~missing] if not isinstance(value, str)]
    if strange:
        raise DataError(
            f"{where} holds {type(strange[0]).__name__} values; numbers, booleans or text were wanted",
            hint="convert the column, for example with astype(str), or drop it",
        )
    return np.array(["" if gone else value for value, gone in zip(values, missing, strict=True)], dtype=np.str_)
