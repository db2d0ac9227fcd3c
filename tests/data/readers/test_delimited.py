"""CSV files: numbers, text, missing values, and mistakes with their line and column."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import DataError
from hanse.data.readers import delimited
from hanse.data.readers.delimited import Format, read_delimited


def write(path: Path, text: str, name: str = "t.csv") -> Path:
    file = path / name
    file.write_text(text, encoding="utf-8")
    return file


def test_numbers_text_and_missing_values(tmp_path: Path) -> None:
    table = read_delimited(write(tmp_path, 'a, b,c\n1, x ,?\n\n2.5,,-3e2\nNA,"y,z",4\n'))
    assert table.names == ("a", "b", "c")
    assert np.array_equal(table["a"], [1, 2.5, np.nan], equal_nan=True)
    assert table["b"].tolist() == ["x", "", "y,z"]
    assert np.array_equal(table["c"], [np.nan, -300, 4], equal_nan=True)
    assert len(table) == 3
    assert table.missing().tolist() == [True, True, True]


def test_bom_tabs_spaces_gzip_and_no_header(tmp_path: Path) -> None:
    assert read_delimited(write(tmp_path, "\ufeffa,b\n1,2\n")).names == ("a", "b")
    assert read_delimited(write(tmp_path, "a\tb\n1\t2\n", "t.tsv"))["b"].tolist() == [2.0]
    spaced = read_delimited(write(tmp_path, "1  2 \n3 4  \n"), Format(header=False, delimiter=" "))
    assert spaced.names == ("c0", "c1")
    assert spaced["c1"].tolist() == [2.0, 4.0]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    assert read_delimited(tmp_path / "t.csv.gz")["a"].tolist() == [1.0]
    named = read_delimited(write(tmp_path, "junk\n1,2\n"), Format(header=False, skip_lines=1, names=("x", "y")))
    assert named["y"].tolist() == [2.0]


def test_declared_text_keeps_its_digits(tmp_path: Path) -> None:
    table = read_delimited(write(tmp_path, "zip,n\n01234,1\n99999,2\n"), Format(text=("zip",)))
    assert table["zip"].tolist() == ["01234", "99999"]


def test_text_that_begins_with_numbers_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_PIECE", 2)
    table = read_delimited(write(tmp_path, "code\n007\n1.0\nx\ny\nz\n"))
    assert table["code"].tolist() == ["007", "1.0", "x", "y", "z"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "holds no rows"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells in a table of 2 columns"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: 3 cells in a table of 2 columns"),
        ("a,b\n1,2\n3,4\n5,oops\n7,8\n", "line 4, column `b`: 'oops' is not a number, and 3 of the column's 4"),
        ("a,a\n1,2\n", "`a` stands twice"),
        ('a,b\n1,"2\n', "cells in a table of 2 columns|unexpected end"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str) -> None:
    file = write(tmp_path, text)
    if "unexpected" in problem:
        assert read_delimited(file)["b"].tolist() == [2.0]  # the csv module closes an open quote at the end
        return
    with pytest.raises(DataError, match=problem) as error:
        read_delimited(file)
    assert str(file) in str(error.value)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,2\n\xff\xfe\x00,3\n")
    with pytest.raises(DataError, match="not readable as delimited text"):
        read_delimited(tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 5000)[:-20])
    with pytest.raises(DataError, match="not readable"):
        read_delimited(tmp_path / "t.csv.gz")


def test_an_unknown_column_gets_the_nearest(tmp_path: Path) -> None:
    table = read_delimited(write(tmp_path, "age,outcome\n1,2\n"))
    with pytest.raises(DataError, match="no column `outcom`") as error:
        table["outcom"]
    assert "did you mean `outcome`" in str(error.value)
    assert table[-1].tolist() == [2.0]
    with pytest.raises(DataError, match="no column 2"):
        table[2]


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.one_of(st.none(), st.integers(-99, 99))), min_size=1))
@settings(deadline=None, max_examples=60)
def test_numbers_come_back_exactly(values: list[tuple[float, int | None]]) -> None:
    import tempfile

    lines = [f"{a!r},{'' if b is None else b}" for a, b in values]
    with tempfile.TemporaryDirectory() as folder:
        table = read_delimited(write(Path(folder), "a,b\n" + "\n".join(lines)))
    assert table["a"].tolist() == [a for a, _ in values]
    if any(b is not None for _, b in values):
        wanted = [np.nan if b is None else b for _, b in values]
        assert np.array_equal(table["b"], wanted, equal_nan=True)
