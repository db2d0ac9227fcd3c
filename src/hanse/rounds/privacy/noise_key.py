"""`NoiseKey`: the secret from which a run's correlated noise follows; whoever has it can take the noise off.

In a simulation it follows from the job's seed and hides nothing. In a federation it is drawn from the operating system
before the first release and stands in a file of its own at the coordinator, for its owner alone, until the run has
ended. It is in no event, log, record, report or message, and in no error's text.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hanse.core.errors import PrivacyError, StorageError
from hanse.core.randomness import derive_seed
from hanse.privacy.random_source import KEY_BYTES, KeyedRandomness
from hanse.rounds.tensor_files import storage_error, sync_folder

_VERSION = 1


class NoiseKey(Protocol):
    """Where rounds' randomness comes from."""

    def prepare(self, number: int, *, begun: bool) -> None:
        """Have the key ready, durably, before a round's noise is released.

        Args:
          number: The round.
          begun: Whether a round of the run may have been released already.
        """
        ...

    def source(self, number: int) -> KeyedRandomness:
        """A round's randomness: a function of the key and the round."""
        ...

    def forget(self) -> None:
        """Destroy the key: no more rounds will come."""
        ...


@dataclass(frozen=True)
class SimulatedKey:
    """A key that follows from the job's seed, so that a simulation can be repeated. It protects nobody.

    Args:
      seed: The job's.
    """

    seed: int

    def prepare(self, number: int, *, begun: bool) -> None:
        """Nothing to do."""

    def source(self, number: int) -> KeyedRandomness:
        """As `NoiseKey.source`."""
        halves = [derive_seed(self.seed, "noise key", i, bits=128).to_bytes(16, "big") for i in range(2)]
        return KeyedRandomness(b"".join(halves), _purpose(number), is_secret=False)

    def forget(self) -> None:
        """Nothing to do."""


class KeyFile:
    """A key in a file, with the newest round whose noise may have been released.

    Args:
      path: The file; made by `prepare`, with its folder, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None
        self._newest = 0

    def __repr__(self) -> str:
        return f"KeyFile({str(self._path)!r})"

    def prepare(self, number: int, *, begun: bool) -> None:
        """Make or read the key, and note the round; when this returns, both are on the disk.

        Raises:
          PrivacyError: The run has begun and its key is gone, or the journal was put back to an older round: the same
            noise on other sums would give their difference away.
          StorageError: The file can't be read or written, or others may read it.
        """
        if self._key is None and not self._read():
            if begun:
                raise PrivacyError(
                    f"the key of the run's noise is not in `{self._path}`: rounds were released with it, and the "
                    "next can't be without",
                    hint="restore the file, or start a new run, whose privacy is charged anew",
                )
            self._key = secrets.token_bytes(KEY_BYTES)
        if number < self._newest:
            raise PrivacyError(
                f"noise of round {self._newest} may have been released, and this is round {number} again: the run's "
                "journal was put back to an older state",
                hint="start a new run, whose privacy is charged anew",
            )
        if number > self._newest:
            self._newest = number
            self._write()

    def source(self, number: int) -> KeyedRandomness:
        """As `NoiseKey.source`.

        Raises:
          PrivacyError: `prepare` was not called.
        """
        if self._key is None:
            raise PrivacyError("noise was asked for before its key was prepared")
        return KeyedRandomness(self._key, _purpose(number), is_secret=True)

    def forget(self) -> None:
        """Remove the file; rounds that were released stay protected when somebody else gets at the disk later.

        Raises:
          StorageError: It can't be removed.
        """
        self._key = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self._path) from error

    def _read(self) -> bool:
        try:
            if os.name == "posix" and self._path.stat().st_mode & 0o077:
                raise StorageError(
                    f"`{self._path}` holds a secret, and others may read it", hint=f"chmod 600 {self._path}"
                )
            found = json.loads(self._path.read_bytes())
            if found["version"] != _VERSION:
                raise StorageError(f"`{self._path}` was written by another version of Hanse")
            key, newest = bytes.fromhex(found["key"]), int(found["newest"])
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, self._path) from error
        except (ValueError, KeyError, TypeError):
            # without a cause: its text may hold part of the key
            raise StorageError(f"`{self._path}` is damaged", hint="restore it from a copy") from None
        if len(key) != KEY_BYTES:
            raise StorageError(f"`{self._path}` is damaged", hint="restore it from a copy")
        self._key, self._newest = key, newest
        return True

    def _write(self) -> None:
        assert self._key is not None
        content = json.dumps({"version": _VERSION, "key": self._key.hex(), "newest": self._newest})
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)  # so that it is made with these permissions
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from error


def _purpose(number: int) -> str:
    return f"correlated noise, round {number}"
