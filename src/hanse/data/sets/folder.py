"""Where the data sets that are not bundled lie."""

from __future__ import annotations

import os
from pathlib import Path

from hanse.core.errors import DataNotFoundError

VARIABLE = "HANSE_DATA"
"""Environment variable that names the folder of data sets."""


def find_folder(name: str, data_dir: Path | str | None, files: tuple[str, ...] = ()) -> Path:
    """The folder `name` below `data_dir`, or else below the folder that `HANSE_DATA` names.

    Args:
      name: Folder of the set, for example ``mnist``.
      data_dir: Folder of data sets, or None to use the environment.
      files: Files that must stand in it.

    Raises:
      DataNotFoundError: No folder was named, or the set or one of its files is not there.
    """
    chosen = data_dir if data_dir is not None else os.environ.get(VARIABLE)
    if not chosen:
        raise DataNotFoundError(
            f"data set `{name}` is read from a folder of data sets, and none was named",
            hint=f"give `data_dir` (`--data-dir` on the command line) or set {VARIABLE}",
        )
    origin = "data_dir" if data_dir is not None else VARIABLE
    root = Path(chosen).expanduser()
    folder = root / name
    if not folder.is_dir():
        problem = "does not exist" if not root.is_dir() else f"has no folder `{name}`"
        raise DataNotFoundError(
            f"data set `{name}` is not there: {root.absolute()} (from {origin}) {problem}",
            hint=f"put its files into {root.absolute() / name}, or name another folder by `data_dir` or {VARIABLE}",
        )
    for file in files:
        if not (folder / file).is_file():
            raise DataNotFoundError(
                f"data set `{name}` is not complete: there is no file {folder.absolute() / file}",
                hint=f"it needs: {', '.join(files)}",
            )
    return folder
