"""Parquet files."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import DataError, MissingExtraError
from hanse.data.readers.parquet import read_parquet


def test_columns_of_every_kind(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "i": pa.array([1, None, 3]),
            "f": pa.array([0.5, 1.5, None], pa.float32()),
            "b": pa.array([True, None, False]),
            "t": pa.array(["x", None, "z"]),
            "d": pa.array(["u", "v", "u"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_parquet(tmp_path / "a.parquet")
    assert np.array_equal(found["i"], [1, np.nan, 3], equal_nan=True)
    assert np.array_equal(found["f"], [0.5, 1.5, np.nan], equal_nan=True)
    assert np.array_equal(found["b"], [1, np.nan, 0], equal_nan=True)
    assert found["t"].tolist() == ["x", "", "z"]
    assert found["d"].tolist() == ["u", "v", "u"]


def test_mistakes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="can't be read as Parquet"):
        read_parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"l": pa.array([[1], [2]])}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="column `l` holds list"):
        read_parquet(tmp_path / "b.parquet")
    pq.write_table(pa.table({"l": pa.array([], pa.int64())}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="no rows"):
        read_parquet(tmp_path / "c.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"hanse\[tables\]"):
        read_parquet(tmp_path / "a.parquet")
