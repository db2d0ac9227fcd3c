"""The IDX format of MNIST: arrays of any shape and one element type, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from hanse.core.errors import DataError
from hanse.data.readers.files import existing

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path | str) -> np.ndarray:
    """Read an array from an IDX file; whether it is gzipped is seen from its first bytes.

    The first four bytes are two zeros, the element type and the number of dimensions; each
    dimension follows as a big-endian uint32, then the elements, row-major and big-endian.

    Returns:
      An array in the machine's byte order; read-only where the file's bytes are used as they are.

    Raises:
      DataNotFoundError: There is no such file.
      DataError: It is not IDX, is cut off, or is longer than its header says.

    References:
      LeCun, Cortes, Burges, "The MNIST database of handwritten digits", file formats.
    """
    path = existing(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path}: the gzip data is damaged or cut off ({error})", hint="copy the file anew"
            ) from None
    dtype, shape, start = _header(content, path)
    wanted = start + math.prod(shape) * dtype.itemsize
    if len(content) != wanted:
        problem = "cut off" if len(content) < wanted else "too long"
        raise DataError(f"{path} is {problem}: {len(content):,} bytes; an IDX array {list(shape)} has {wanted:,}")
    array = np.frombuffer(content, dtype=dtype, offset=start).reshape(shape)
    return array if dtype.isnative or dtype.itemsize == 1 else array.astype(dtype.newbyteorder("="))


def _header(content: bytes, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    if len(content) < 4:
        raise DataError(f"{path} has {len(content)} bytes; an IDX file has at least 4", hint="copy the file anew")
    code, ndim = content[2], content[3]
    if content[:2] != b"\0\0" or code not in _TYPES:
        raise DataError(f"{path} is not an IDX file: it begins with the bytes {content[:4].hex(' ')}")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataError(f"{path} is cut off within its header of {start} bytes", hint="copy the file anew")
    return np.dtype(_TYPES[code]), struct.unpack(f">{ndim}I", content[4:start]), start
