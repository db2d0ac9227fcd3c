"""One Arrow column as a column of a `Table`."""

from __future__ import annotations

from typing import Any

import numpy as np

from hanse.core.errors import DataError


def arrow_column(column: Any, where: str) -> np.ndarray:
    """A chunked Arrow array as float64 with NaN, or as text with empty strings, for missing values.

    Raises:
      DataError: Its values are neither numbers, booleans nor text.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.fill_null("").to_pylist(), dtype=np.str_)
    raise DataError(
        f"{where} holds {kind}; numbers, booleans or text were wanted", hint="drop the column or convert it"
    )
