"""NumPy archives (``.npz``), never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from hanse.core.errors import DataError, did_you_mean
from hanse.data.dataset import Dataset
from hanse.data.readers.arrays import dataset_from_arrays
from hanse.data.readers.encode import About, Kind
from hanse.data.readers.files import existing


def read_npz(path: Path | str, *, kind: Kind = "auto", name: str | None = None) -> Dataset:
    """Read a data set from an archive with the arrays ``x`` and ``y``.

    Optional arrays: ``x_test`` and ``y_test`` for an official test set, and ``group`` (with ``group_test``)
    for natural clients, under the column name ``group``.

    Raises:
      DataNotFoundError: There is no such file.
      DataError: It is not an archive, lacks an array, holds Python objects, or the arrays do not fit.
    """
    path = existing(path)
    arrays = _arrays(path)
    for key in ("x", "y"):
        if key not in arrays:
            raise DataError(f"{path} has no array `{key}`", hint=did_you_mean(key, arrays))
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path} has only one of `x_test` and `y_test`")
    return dataset_from_arrays(
        arrays["x"],
        arrays["y"],
        about=About(name=name or path.stem, source=str(path)),
        kind=kind,
        test=(arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None,
        groups={"group": arrays["group"]} if "group" in arrays else {},
        test_groups={"group": arrays["group_test"]} if "group_test" in arrays else {},
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # opened here and not by NumPy, which leaves a file open that turns out not to be an archive
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one bare array")
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} can't be read as an archive of arrays: {error}",
            hint="write it with numpy.savez; arrays of Python objects are refused, for they could run code",
        ) from None
