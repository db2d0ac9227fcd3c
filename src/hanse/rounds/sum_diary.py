"""What a server notes of a sum that goes on, so that one that is killed goes on with it, with the same keys."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hanse.core.random_bytes import OsBytes, RandomBytes
from hanse.rounds.privacy.secret_file import SecretFile, bytes_of

DIARIES = "sums"
"""The folder beside a coordinator's ledger in which live runs' diaries are, one file each."""

_KEY_BYTES = 32
_COHORT, _MEMBERS = "cohort", "members"


@dataclass(frozen=True, kw_only=True)
class StepTaken:
    """How a step ended.

    Args:
      answered: Whose answers counted.
      lost: Who did not answer as it should: kind of failure, and message.
    """

    answered: tuple[str, ...]
    lost: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class SumDiary(Protocol):
    """Remembers the steps of a round's sums. A step is noted before what follows from it is sent to anybody."""

    def begin(self, round_number: int, purpose: str) -> None:
        """A sum begins, or goes on where it was; what is known of other rounds' is forgotten."""
        ...

    def cohort(self, round_number: int, select: Callable[[], Sequence[str]]) -> tuple[str, ...]:
        """Whom a round asks: as selected now, or as it was when the round began before a crash."""
        ...

    def members(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """Who takes part in the sum that goes on, and with the answer to which round: as found now, or as it began."""
        ...

    def source(self, attempt: int) -> RandomBytes:
        """The server's own random bytes of an attempt: the same whenever it is asked."""
        ...

    def taken(self, attempt: int, step: str) -> StepTaken | None:
        """How a step ended; None where it did not."""
        ...

    def note(self, attempt: int, step: str, taken: StepTaken) -> None:
        """A step has ended; durable when this returns."""
        ...


class NoDiary:
    """For a server that is never killed: tests, and federations in one process."""

    def begin(self, round_number: int, purpose: str) -> None:
        """Nothing to do."""

    def cohort(self, round_number: int, select: Callable[[], Sequence[str]]) -> tuple[str, ...]:
        """As selected now."""
        return tuple(select())

    def members(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """As found now."""
        return found

    def source(self, attempt: int) -> RandomBytes:
        """The operating system's."""
        return OsBytes()

    def taken(self, attempt: int, step: str) -> StepTaken | None:
        """None."""
        return None

    def note(self, attempt: int, step: str, taken: StepTaken) -> None:
        """Nothing to do."""


class DiaryFile:
    """A diary in a file that its owner alone may read: the random bytes in it are for nobody else's eyes.

    Args:
      path: The file; its folder is made with it.
    """

    def __init__(self, path: Path) -> None:
        self._file = SecretFile(path)
        self._values: dict[str, Any] = {}
        self._purpose = ""

    def __repr__(self) -> str:
        return f"DiaryFile({str(self._file.path)!r})"

    def begin(self, round_number: int, purpose: str) -> None:
        """As `SumDiary.begin`; raises `StorageError`."""
        known = self._known()
        if known.get("round") != round_number:  # the rounds before are committed
            known = {"round": round_number, "sums": {}}
        self._values, self._purpose = known, purpose
        if purpose not in known["sums"]:
            self._put({"key": secrets.token_bytes(_KEY_BYTES).hex(), "steps": {}})

    def cohort(self, round_number: int, select: Callable[[], Sequence[str]]) -> tuple[str, ...]:
        """As `SumDiary.cohort`; raises `StorageError`."""
        known = self._known()
        if known.get("round") != round_number:
            known = {"round": round_number, "sums": {}}
        if _COHORT not in known:
            known = {**known, _COHORT: list(select())}
            self._file.write(known)
        self._values = known
        return tuple(known[_COHORT])

    def members(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """As `SumDiary.members`; raises `StorageError`."""
        if _MEMBERS not in self._sum:
            self._put({**self._sum, _MEMBERS: dict(found)})
        return dict(self._sum[_MEMBERS])

    def source(self, attempt: int) -> RandomBytes:
        """As `SumDiary.source`."""
        return _Derived(bytes_of(self._sum.get("key"), _KEY_BYTES, self._file), attempt)

    def taken(self, attempt: int, step: str) -> StepTaken | None:
        """As `SumDiary.taken`."""
        found = self._sum["steps"].get(f"{attempt} {step}")
        if found is None:
            return None
        lost = {client: (kind, message) for client, (kind, message) in found["lost"].items()}
        return StepTaken(answered=tuple(found["answered"]), lost=lost)

    def note(self, attempt: int, step: str, taken: StepTaken) -> None:
        """As `SumDiary.note`; raises `StorageError`."""
        lost = {client: list(told) for client, told in taken.lost.items()}
        steps = {**self._sum["steps"], f"{attempt} {step}": {"answered": list(taken.answered), "lost": lost}}
        self._put({**self._sum, "steps": steps})

    def _known(self) -> dict[str, Any]:
        return self._values or self._file.read() or {}

    def forget(self) -> None:
        """Remove the file: the run has ended; raises `StorageError`."""
        self._file.remove()

    @property
    def _sum(self) -> dict[str, Any]:
        found: dict[str, Any] = self._values["sums"][self._purpose]
        return found

    def _put(self, values: dict[str, Any]) -> None:
        """Write first, so that nothing is remembered that is not on the disk."""
        changed = {**self._values, "sums": {**self._values["sums"], self._purpose: values}}
        self._file.write(changed)
        self._values = changed


class PartOfDiary:
    """The pages of one of several sums of the same kind in a round, whichever was written of in between.

    Args:
      diary: The whole.
      place: Which sum, from 0.
    """

    def __init__(self, diary: SumDiary, place: int) -> None:
        self._diary = diary
        self._place = place
        self._begun: tuple[int, str] = (0, "")

    def begin(self, round_number: int, purpose: str) -> None:
        """As `SumDiary.begin`."""
        self._begun = round_number, f"{purpose} {self._place}"
        self._diary.begin(*self._begun)

    def cohort(self, round_number: int, select: Callable[[], Sequence[str]]) -> tuple[str, ...]:
        """As `SumDiary.cohort`: the round's."""
        return self._diary.cohort(round_number, select)

    def members(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """As `SumDiary.members`."""
        return self._here().members(found)

    def source(self, attempt: int) -> RandomBytes:
        """As `SumDiary.source`."""
        return self._here().source(attempt)

    def taken(self, attempt: int, step: str) -> StepTaken | None:
        """As `SumDiary.taken`."""
        return self._here().taken(attempt, step)

    def note(self, attempt: int, step: str, taken: StepTaken) -> None:
        """As `SumDiary.note`."""
        self._here().note(attempt, step, taken)

    def _here(self) -> SumDiary:
        self._diary.begin(*self._begun)
        return self._diary


def diary_path(ledger: Path, run: str) -> Path:
    """Where a coordinator keeps a run's diary: beside its ledger."""
    return ledger.parent / DIARIES / f"{run}.json"


class _Derived:
    """Bytes that follow from a key that nobody else has."""

    is_secret = True

    def __init__(self, key: bytes, attempt: int) -> None:
        self._key, self._attempt, self._drawn = key, attempt, 0

    def draw(self, size: int) -> bytes:
        self._drawn += 1
        context = f"{self._attempt} {self._drawn}".encode()
        return hashlib.shake_256(b"hanse sum diary\n" + self._key + context).digest(size)
