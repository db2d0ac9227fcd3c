"""What a run in a folder has spent, read from its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.errors import PrivacyError
from hanse.privacy.accountant import Spent
from hanse.privacy.budget import Budget
from hanse.privacy.events import Event, LocalEpsilon
from hanse.privacy.ledger import ChargeKey, PrivacyLedger
from hanse.rounds.privacy.run import LEDGER, scope_of


@dataclass(frozen=True, kw_only=True)
class PrivacyAccount:
    """A run's spending.

    Args:
      unit: Who is protected.
      budget: What the run may cost; None where nothing bounds it.
      delta: At which epsilon is told; None where all releases do without.
      releases: How many there were; one that was made again after a crash with new noise counts again.
      by_round: What was spent after some rounds, the last one among them; round 0 alone where all rounds were charged
        together.
      local: Whether clients added the noise themselves.
    """

    unit: str
    budget: Budget | None
    delta: float | None
    releases: int
    by_round: Mapping[int, Spent]
    local: bool = False


def keep_releases(folder: Path, name: str, releases: Iterable[tuple[int, int, Event]]) -> None:
    """Write down in a folder what a run elsewhere has released, entry by entry; what is there already stays.

    Args:
      folder: The run folder.
      name: The run's name.
      releases: Round, attempt and event of each charge, in order.

    Raises:
      PrivacyError: The folder has another account of the same release.
      StorageError: The ledger can't be written.
    """
    charges = [(ChargeKey(run=name, round=number, attempt=attempt), event) for number, attempt, event in releases]
    if charges:
        for error in PrivacyLedger(folder / LEDGER, scope=scope_of(name)).charge_each(charges).values():
            raise error


def spent_by_round(folder: Path, name: str, job: Mapping[str, Any], *, delta: float | None = None) -> PrivacyAccount:
    """A run's spending so far.

    Args:
      folder: The run folder.
      name: The run's name.
      job: As the run keeps it.
      delta: At which to tell epsilon; by default the job's.

    Raises:
      PrivacyError: The run promises nothing, or there is no delta.
      StorageError: The ledger can't be read.
    """
    said = job.get("privacy")
    if not isinstance(said, Mapping):
        raise PrivacyError(f"run `{name}` promises no privacy", hint="its job has no [privacy] table")
    if not (folder / LEDGER).is_file():
        raise PrivacyError(
            f"run `{name}` has no ledger in its folder: nothing was released yet, or it was fetched without one",
            hint=f"if it is of a federation: hanse fetch {name}, or hanse privacy {name} --federation NAME",
        )
    values = said.get("budget")
    budget = Budget(**values) if isinstance(values, Mapping) else None
    at = delta if delta is not None else budget.delta if budget is not None else said.get("delta")
    ledger = PrivacyLedger(folder / LEDGER, scope=scope_of(name))
    entries = ledger.entries()
    if at is None and not all(isinstance(entry.event, LocalEpsilon) for entry in entries):
        raise PrivacyError("no delta to tell epsilon at", hint="give --delta, for example --delta 1e-5")
    return PrivacyAccount(
        unit=str(said.get("unit", "client")),
        budget=budget,
        delta=None if at is None else float(at),
        releases=len(entries),
        by_round=ledger.spent_by_round(name, delta=None if at is None else float(at)),
        local=said.get("mechanism", "none") == "none",
    )
