"""CSV and TSV files, read in pieces, with the line and the column of whatever is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from hanse.core.errors import DataError
from hanse.data.readers.files import existing
from hanse.data.readers.table import ColumnName, Table

MISSING = frozenset({"", "?", "NA", "N/A", "NaN", "nan", "NULL", "null"})
"""Cells that stand for a missing value."""

_PIECE = 20_000  # rows held as text at a time


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a delimited file is written.

    Args:
      header: Whether the first line names the columns; without it they are ``c0``, ``c1``, …
      names: Names that replace those of the file, or None.
      delimiter: One character; None takes a tab for ``.tsv`` and a comma otherwise; a space means
        any run of spaces.
      skip_lines: Lines before the header or the first row that are passed over.
      text: Columns that are text even where every cell looks like a number (codes, ids).
    """

    header: bool = True
    names: tuple[str, ...] | None = None
    delimiter: str | None = None
    skip_lines: int = 0
    text: tuple[ColumnName, ...] = ()


def read_delimited(path: Path | str, layout: Format | None = None) -> Table:
    """Read a CSV or TSV file (UTF-8, with or without a byte-order mark, gzipped where it ends in ``.gz``).

    Spaces around a cell are dropped and blank lines passed over. A column is numeric where its
    cells are numbers; it is text where at least half of the cells that are there are not. Anything between is
    taken for a mistake in the file and reported.

    Raises:
      DataNotFoundError: There is no such file.
      DataError: The file is empty, a row has too many or too few cells, or a cell of a numeric
        column is not a number; the message names line and column.
    """
    path = existing(path)
    layout = layout or Format()
    names, columns = _read(path, layout, frozenset())
    mixed = frozenset(i for i, column in enumerate(columns) if column.is_mixed)
    if mixed:
        # some pieces were already turned into numbers, and 1.0 must not become "1": read those again as text
        names, columns = _read(path, layout, mixed)
    if not columns or not columns[0].pieces:
        raise DataError(f"{path} holds no rows", hint="an empty file, or a header alone")
    return Table(names, tuple(column.join() for column in columns), str(path))


@dataclass
class _Column:
    """One column as it grows: pieces of numbers as long as that goes, pieces of text from then on."""

    name: str
    text: bool
    pieces: list[np.ndarray] = field(default_factory=list)
    present: int = 0
    bad: int = 0
    first_bad: tuple[int, str] | None = None

    @property
    def is_mixed(self) -> bool:
        return len({piece.dtype.kind for piece in self.pieces}) > 1

    def add(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        if not self.text:
            try:
                self.pieces.append(np.array([math.nan if cell in MISSING else float(cell) for cell in cells]))
            except ValueError:
                self._count_bad(cells, lines)
            else:
                self.present += sum(cell not in MISSING for cell in cells)
                return
        self.pieces.append(np.array(["" if cell in MISSING else cell for cell in cells], dtype=np.str_))

    def _count_bad(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        for cell, line in zip(cells, lines, strict=True):
            if cell in MISSING:
                continue
            self.present += 1
            if not _is_number(cell):
                self.bad += 1
                self.first_bad = self.first_bad or (line, cell)

    def check(self, path: Path) -> None:
        if self.first_bad is None or self.bad * 2 >= self.present:
            return
        line, cell = self.first_bad
        raise DataError(
            f"{path}, line {line}, column `{self.name}`: {cell!r} is not a number, "
            f"and {self.present - self.bad:,} of the column's {self.present:,} values are",
            hint="correct the cell, leave it empty for a missing value, or declare the column as categorical",
        )

    def join(self) -> np.ndarray:
        return np.concatenate(self.pieces)


def _read(path: Path, layout: Format, as_text: frozenset[int]) -> tuple[tuple[str, ...], list[_Column]]:
    with _open(path) as file:
        rows = _rows(file, path, layout)
        names, first = _names(rows, path, layout)
        declared = {Table(names, tuple(np.zeros(0) for _ in names), str(path)).position(c) for c in layout.text}
        columns = [_Column(name, i in declared or i in as_text) for i, name in enumerate(names)]
        for lines, piece in _pieces(rows, first, len(names), path):
            for column, cells in zip(columns, zip(*piece, strict=True), strict=True):
                column.add(cells, lines)
    for column in columns:
        column.check(path)
    return names, columns


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(file: TextIO, path: Path, layout: Format) -> Iterator[tuple[int, list[str]]]:
    """Line number (of a row's last line) and cells of each row that is not blank."""
    delimiter = layout.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
    for _ in range(layout.skip_lines):
        file.readline()
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if delimiter == " ":
                stripped = [cell for cell in stripped if cell]
            if any(stripped):
                yield reader.line_num + layout.skip_lines, stripped
    except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
        raise DataError(
            f"{path}, after line {reader.line_num + layout.skip_lines}: not readable as delimited text ({error})",
            hint="the file has to be UTF-8 text",
        ) from None


def _names(
    rows: Iterator[tuple[int, list[str]]], path: Path, layout: Format
) -> tuple[tuple[str, ...], tuple[int, list[str]] | None]:
    """Column names, and the first row where it was needed to count the columns."""
    line, cells = next(rows, (0, []))
    if not cells:
        raise DataError(f"{path} is empty")
    own = tuple(cell or f"c{i}" for i, cell in enumerate(cells)) if layout.header else None
    names = layout.names or own or tuple(f"c{i}" for i in range(len(cells)))
    if len(names) != len(cells):
        raise DataError(f"{path}, line {line}: {len(cells)} cells for {len(names)} column names")
    return names, None if layout.header else (line, cells)


def _pieces(
    rows: Iterator[tuple[int, list[str]]], first: tuple[int, list[str]] | None, width: int, path: Path
) -> Iterator[tuple[list[int], list[list[str]]]]:
    lines, piece = ([first[0]], [first[1]]) if first else ([], [])
    for line, cells in rows:
        if len(cells) != width:
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells in a table of {width} columns",
                hint="a missing value still needs its comma; a comma within a value needs quotes around it",
            )
        lines.append(line)
        piece.append(cells)
        if len(piece) == _PIECE:
            yield lines, piece
            lines, piece = [], []
    if piece:
        yield lines, piece


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
