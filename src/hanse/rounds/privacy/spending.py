"""What a run in a folder has spent, read from its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.errors import PrivacyError
from hanse.privacy.accountant import Spent
from hanse.privacy.budget import Budget
from hanse.privacy.events import LocalEpsilon
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.privacy.run import LEDGER, scope_of
from hanse.rounds.privacy.settled import neighbours_by


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
      local: Whether each client's report is private by itself.
      shares: Whether clients added noise in shares, which is private in sums alone.
    """

    unit: str
    budget: Budget | None
    delta: float | None
    releases: int
    by_round: Mapping[int, Spent]
    local: bool = False
    shares: bool = False


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
    if not isinstance(said, Mapping) or not (folder / LEDGER).is_file():
        raise PrivacyError(f"run `{name}` promises no privacy", hint="its job has no [privacy] table")
    values = said.get("budget")
    budget = Budget(**values) if isinstance(values, Mapping) else None
    at = delta if delta is not None else budget.delta if budget is not None else said.get("delta")
    unit = str(said.get("unit", "client"))
    ledger = PrivacyLedger(folder / LEDGER, scope=scope_of(name), neighbours=neighbours_by(unit))
    entries = ledger.entries()
    if at is None and not all(isinstance(entry.event, LocalEpsilon) for entry in entries):
        raise PrivacyError("no delta to tell epsilon at", hint="give --delta, for example --delta 1e-5")
    return PrivacyAccount(
        unit=unit,
        budget=budget,
        delta=None if at is None else float(at),
        releases=len(entries),
        by_round=ledger.spent_by_round(name, delta=None if at is None else float(at)),
        local=said.get("mechanism", "none") == "none",
        shares=isinstance(said.get("mechanism"), Mapping) and said["mechanism"].get("use") == "distributed",
    )
