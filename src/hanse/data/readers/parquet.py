"""Parquet files, through PyArrow."""

from __future__ import annotations

from pathlib import Path

from hanse.core.errors import DataError, MissingExtraError
from hanse.data.readers.arrow import arrow_column
from hanse.data.readers.files import existing
from hanse.data.readers.table import Table


def read_parquet(path: Path | str) -> Table:
    """Read a Parquet file: numbers and booleans become numbers, text and dictionaries text.

    Raises:
      MissingExtraError: PyArrow is not installed.
      DataNotFoundError: There is no such file.
      DataError: It is not Parquet, has no rows, or has a column of another kind (dates, lists).
    """
    path = existing(path)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("reading Parquet", extra="tables") from None
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read as Parquet: {error}") from None
    if not table.num_rows:
        raise DataError(f"{path} holds no rows")
    names = tuple(str(name) for name in table.column_names)
    columns = tuple(arrow_column(table.column(i), f"{path}, column `{name}`") for i, name in enumerate(names))
    return Table(names, columns, str(path))
