"""`SecretFile`: a few values in a file that its owner alone may read, written whole and durably."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.core.errors import StorageError
from hanse.rounds.tensor_files import storage_error, sync_folder

_VERSION = 1


class SecretFile:
    """Values that nobody else may see. No error's text, and no cause of one, quotes them.

    Args:
      path: The file; its folder is made with it, closed to others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"SecretFile({str(self.path)!r})"

    def read(self) -> dict[str, Any] | None:
        """The values; None where there is no file.

        Raises:
          StorageError: It can't be read, is damaged, or others may read it.
        """
        try:
            if os.name == "posix" and self.path.stat().st_mode & 0o077:
                raise StorageError(
                    f"`{self.path}` holds a secret, and others may read it", hint=f"chmod 600 {self.path}"
                )
            found = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, self.path) from error
        except (ValueError, RecursionError):
            raise self.damaged() from None  # without a cause: its text may hold part of the secret
        if not isinstance(found, dict) or "version" not in found:
            raise self.damaged()
        if found.pop("version") != _VERSION:
            raise StorageError(f"`{self.path}` was written by another version of Hanse")
        return found

    def write(self, values: Mapping[str, Any]) -> None:
        """Put these values in place of what stood there; when this returns, they are on the disk.

        Raises:
          StorageError: They can't be written.
        """
        content = json.dumps({"version": _VERSION, **values})
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)  # so that it is made with these permissions
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def remove(self) -> None:
        """Remove the file, whether it is there or not.

        Raises:
          StorageError: It can't be removed.
        """
        try:
            self.path.with_name(f"{self.path.name}.new").unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def damaged(self) -> StorageError:
        """The error for values that are not what they should be."""
        return StorageError(f"`{self.path}` is damaged", hint="restore it from a copy")


def bytes_of(value: object, size: int, file: SecretFile) -> bytes:
    """Bytes that stand in a secret file as hexadecimal digits.

    Raises:
      StorageError: They don't, or are another number.
    """
    try:
        found = bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError:
        raise file.damaged() from None
    if len(found) != size:
        raise file.damaged()
    return found
