"""`NoiseKey`: the secret from which a run's correlated noise follows; whoever has it can take the noise off.

In a simulation it follows from the job's seed and hides nothing. In a federation it is drawn from the operating system
before the first release and stands in a file of its own at the coordinator, for its owner alone, until the run has
ended. It is in no event, log, record, report or message, and in no error's text.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hanse.core.errors import PrivacyError
from hanse.core.randomness import derive_seed
from hanse.privacy.random_source import KEY_BYTES, KeyedRandomness
from hanse.rounds.privacy.secret_file import SecretFile, bytes_of

CORRELATED = "correlated noise"
"""What a key is for unless somebody says otherwise."""


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
        return KeyedRandomness(b"".join(halves), _purpose(CORRELATED, number), is_secret=False)

    def forget(self) -> None:
        """Nothing to do."""


class KeyFile:
    """A key in a file, with the newest round whose noise may have been released.

    Args:
      path: The file; made by `prepare`, with its folder, readable by its owner alone.
      purpose: What is drawn from it.
    """

    def __init__(self, path: Path, purpose: str = CORRELATED) -> None:
        self._file = SecretFile(path)
        self._about = purpose
        self._key: bytes | None = None
        self._newest = 0

    def __repr__(self) -> str:
        return f"KeyFile({str(self._file.path)!r})"

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
                    f"the key of the run's {self._about} is not in `{self._file.path}`: rounds were released with it, "
                    "and the next can't be without",
                    hint="restore the file, or start a new run, whose privacy is charged anew",
                )
            self._key = secrets.token_bytes(KEY_BYTES)
        if number < self._newest:
            raise PrivacyError(
                f"{self._about} of round {self._newest} may have been released, and this is round {number} again: the "
                "run's journal was put back to an older state",
                hint="start a new run, whose privacy is charged anew",
            )
        if number > self._newest:
            self._newest = number
            assert self._key is not None
            self._file.write({"key": self._key.hex(), "newest": self._newest})

    def source(self, number: int) -> KeyedRandomness:
        """As `NoiseKey.source`.

        Raises:
          PrivacyError: `prepare` was not called.
        """
        if self._key is None:
            raise PrivacyError("noise was asked for before its key was prepared")
        return KeyedRandomness(self._key, _purpose(self._about, number), is_secret=True)

    def forget(self) -> None:
        """Remove the file; rounds that were released stay protected when somebody else gets at the disk later.

        Raises:
          StorageError: It can't be removed.
        """
        self._key = None
        self._file.remove()

    def _read(self) -> bool:
        found = self._file.read()
        if found is None:
            return False
        newest = found.get("newest")
        if type(newest) is not int:
            raise self._file.damaged()
        self._key, self._newest = bytes_of(found.get("key"), KEY_BYTES, self._file), newest
        return True


def _purpose(about: str, number: int) -> str:
    return f"{about}, round {number}"
