"""IDX files: written by hand, read back, and refused when damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from hanse.core.errors import DataError, DataNotFoundError
from hanse.data.readers.idx import read_idx


def idx(array: np.ndarray, code: int) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, np.uint8), (0x09, np.int8), (0x0B, np.int16), (0x0C, np.int32), (0x0D, np.float32), (0x0E, np.float64)],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_reads_every_type_plain_and_zipped(tmp_path: Path, code: int, dtype: type, zipped: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = idx(array, code)
    (tmp_path / "a").write_bytes(gzip.compress(content) if zipped else content)
    found = read_idx(tmp_path / "a")
    assert found.tolist() == array.tolist()
    assert found.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "0 bytes"),
        (b"\x00\x00\x08", "3 bytes"),
        (b"\x89PNG and so on", "not an IDX file: it begins with the bytes 89 50 4e 47"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x00", "not an IDX file"),
        (b"\x00\x00\x08\x03\x00\x00", "cut off within its header"),
        (idx(np.zeros(10, np.uint8), 8)[:-1], "cut off: 17 bytes"),
        (idx(np.zeros(10, np.uint8), 8) + b"x", "too long"),
        (gzip.compress(idx(np.zeros(1000, np.uint8), 8), mtime=0)[:-12], "damaged or cut off"),
        (b"\x1f\x8bnonsense", "damaged or cut off"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(DataError, match=problem) as error:
        read_idx(tmp_path / "bad")
    assert str(tmp_path / "bad") in str(error.value)


def test_a_huge_header_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff")
    with pytest.raises(DataError, match="cut off"):
        read_idx(tmp_path / "bad")


def test_a_missing_file_is_looked_for_nearby(tmp_path: Path) -> None:
    (tmp_path / "train-images.gz").write_bytes(b"")
    with pytest.raises(DataNotFoundError) as error:
        read_idx(tmp_path / "train-image.gz")
    assert "train-images.gz" in (error.value.hint or "")
    with pytest.raises(DataNotFoundError, match="no file") as error:
        read_idx(tmp_path / "nowhere" / "x")
    assert "does not exist either" in (error.value.hint or "")
    with pytest.raises(DataError, match="is a folder"):
        read_idx(tmp_path)
