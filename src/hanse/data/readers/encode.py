"""From a `Table` to a `Dataset`: which column is the target, which are inputs, and how they become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.labels import class_indices
from hanse.data.readers.table import ColumnName, Table

Encoding = Literal["one_hot", "codes"]
Kind = Literal["auto", "classes", "number"]

MAX_CATEGORIES = 200
"""A text column with more different values than this is taken for free text or an id."""

_MOST_NUMERIC_CLASSES = 20  # whole numbers with more different values than this are a quantity


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of a table are for.

    Args:
      target: Column that is to be predicted.
      group: Columns that name natural clients; they are not inputs, unless `keep_groups` says so.
      drop: Columns that are not used.
      categorical: Numeric columns that hold codes of categories. Text columns are categorical anyway.
      encode: ``one_hot`` makes a 0/1 column of each category (all 0 where the value is missing);
        ``codes`` makes one column of the category's position in sorted order (NaN where missing).
      kind: ``classes`` or ``number``; ``auto`` takes text, and whole numbers with at most 20 different
        values, for classes.
      missing: ``keep`` leaves NaN in the inputs; ``drop`` leaves out rows with a missing value.
      keep_groups: Group columns are inputs as well.
    """

    target: ColumnName
    group: tuple[ColumnName, ...] = ()
    drop: tuple[ColumnName, ...] = ()
    categorical: tuple[ColumnName, ...] = ()
    encode: Encoding = "one_hot"
    kind: Kind = "auto"
    missing: Literal["keep", "drop"] = "keep"
    keep_groups: bool = False


@dataclass(frozen=True, kw_only=True)
class About:
    """Name and provenance of a data set."""

    name: str
    description: str = ""
    source: str = ""


def dataset_from_table(table: Table, columns: Columns, *, about: About, test: Table | None = None) -> Dataset:
    """Choose target, groups and inputs, and turn text into numbers.

    Inputs become float32 `[n, d]`, columns in the order of the table. Categories are those
    of training and test rows together, sorted, so both are encoded alike.

    Args:
      table: The training rows.
      columns: What the columns are for.
      about: Name, description, source.
      test: Rows of the official test set, with the same columns, or None.

    Raises:
      DataError: A named column is missing, a target is missing or not of the kind that was
        asked for, a text column has too many categories, or no rows or inputs are left.
    """
    whole = table if test is None else Table.concatenate([table, test])
    is_test = np.arange(len(whole)) >= len(table)
    gone = {whole.position(name) for name in columns.drop}
    target = whole.position(columns.target)
    if columns.missing == "drop":
        kept = ~whole.without([i for i in gone if i != target]).missing()
        whole, is_test = whole.take(kept), is_test[kept]
    if is_test.all():
        raise DataError(f"{table.source}: no training rows are left once rows with missing values are dropped")
    y, classes = _target(whole, target, columns.kind)
    groups = {whole.names[i]: group_labels(whole.columns[i]) for i in map(whole.position, columns.group)}
    if not columns.keep_groups:
        gone |= {whole.position(name) for name in columns.group}
    coded = frozenset(whole.names[whole.position(name)] for name in columns.categorical)
    x, features = encode_inputs(whole.without([*gone, target]), coded, encode=columns.encode)
    return Dataset(
        name=about.name,
        train=Examples(x[~is_test], y[~is_test]) if is_test.any() else Examples(x, y),
        test=Examples(x[is_test], y[is_test]) if is_test.any() else None,
        target="classes" if classes else "number",
        classes=classes,
        features=features,
        groups={name: labels[~is_test] for name, labels in groups.items()},
        test_groups={name: labels[is_test] for name, labels in groups.items()} if is_test.any() else {},
        description=about.description,
        source=about.source,
    )


def encode_inputs(
    table: Table, coded: frozenset[str] = frozenset(), *, encode: Encoding = "one_hot"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """All columns of the table as float32 `[n, d]`, and their d names.

    Args:
      table: Inputs only.
      coded: Names of numeric columns that hold codes of categories.
      encode: As in `Columns`.

    Raises:
      DataError: There is no column, or a text column has too many categories.
    """
    names: list[str] = []
    parts: list[np.ndarray] = []
    for name, column in zip(table.names, table.columns, strict=True):
        if column.dtype.kind == "f" and name not in coded:
            parts.append(column.astype(np.float32)[:, None])
            names.append(name)
            continue
        block, categories = _categories(name, column, encode, table.source)
        parts.append(block)
        names.extend(f"{name}={category}" for category in categories) if categories else names.append(name)
    if not parts:
        raise DataError(f"{table.source}: no column is left as an input")
    x = np.empty((len(table), len(names)), dtype=np.float32)
    np.concatenate(parts, axis=1, out=x)
    return x, tuple(names)


def group_labels(column: np.ndarray) -> np.ndarray:
    """Labels of natural clients: text as it is, whole numbers as int64.

    Raises:
      DataError: A label is missing or not a whole number.
    """
    if column.dtype.kind != "f":
        if (column == "").any():
            return np.where(column == "", "missing", column)
        return column
    if not (np.isfinite(column).all() and (column == np.rint(column)).all()):
        raise DataError("a group column of numbers has values that are missing or not whole")
    return column.astype(np.int64)


def _categories(name: str, column: np.ndarray, encode: Encoding, source: str) -> tuple[np.ndarray, Sequence[str]]:
    """A float32 block for one categorical column; the categories' names where it is one-hot."""
    absent = np.isnan(column) if column.dtype.kind == "f" else column == ""
    values, codes = np.unique(column[~absent], return_inverse=True)
    if len(values) > MAX_CATEGORIES:
        raise DataError(
            f"{source}, column `{name}`: {len(values):,} different values are too many for a category",
            hint=f"drop the column (`drop`), or use it as the `group`; at most {MAX_CATEGORIES} are encoded",
        )
    if encode == "codes":
        block = np.full((len(column), 1), np.nan, dtype=np.float32)
        block[~absent, 0] = codes
        return block, ()
    block = np.zeros((len(column), len(values)), dtype=np.float32)
    block[np.flatnonzero(~absent), codes] = 1.0
    return block, [_plain(value) for value in values.tolist()]


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _target(table: Table, at: int, kind: Kind) -> tuple[np.ndarray, tuple[str, ...]]:
    column, name = table.columns[at], table.names[at]
    absent = np.isnan(column) if column.dtype.kind == "f" else column == ""
    if absent.any():
        raise DataError(
            f"{table.source}: the target `{name}` is missing in {int(absent.sum()):,} of {len(column):,} rows, "
            f"first in row {int(np.flatnonzero(absent)[0]) + 1}",
            hint='fill it in, or leave such rows out with missing = "drop"',
        )
    if kind == "auto":
        kind = "classes" if _looks_like_classes(column) else "number"
    if kind == "classes":
        return class_indices(column)
    if column.dtype.kind != "f":
        raise DataError(
            f"{table.source}: the target `{name}` holds text such as {str(column[0])!r}, not numbers",
            hint='use kind = "classes", or choose another target',
        )
    return column.astype(np.float32), ()


def _looks_like_classes(column: np.ndarray) -> bool:
    if column.dtype.kind != "f":
        return True
    return bool((column == np.rint(column)).all()) and len(np.unique(column)) <= _MOST_NUMERIC_CLASSES
