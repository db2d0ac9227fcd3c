"""Finding files: an honest sentence when one is not there."""

from __future__ import annotations

from pathlib import Path

from hanse.core.errors import DataError, DataNotFoundError, nearest


def existing(path: Path | str) -> Path:
    """The path, where a file stands.

    Raises:
      DataNotFoundError: There is none; the hint names a file like it in the same folder.
      DataError: It is a folder.
    """
    found = Path(path).expanduser()
    if found.is_file():
        return found
    if found.is_dir():
        raise DataError(f"{found} is a folder; a file was wanted")
    raise DataNotFoundError(f"there is no file {found.absolute()}", hint=_nearby(found))


def existing_folder(path: Path | str) -> Path:
    """The path, where a folder stands.

    Raises:
      DataNotFoundError: There is none.
    """
    found = Path(path).expanduser()
    if found.is_dir():
        return found
    raise DataNotFoundError(f"there is no folder {found.absolute()}", hint=_nearby(found))


def _nearby(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder.absolute()} does not exist either"
    guess = nearest(path.name, [entry.name for entry in folder.iterdir()])
    return f"did you mean {folder / guess}?" if guess else f"nothing in {folder.absolute()} has a name like it"
