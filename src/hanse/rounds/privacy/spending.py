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
from hanse.rounds.history import RunRecord
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
      mechanism: What adds the noise, as the job names it.
    """

    unit: str
    budget: Budget | None
    delta: float | None
    releases: int
    by_round: Mapping[int, Spent]
    local: bool = False
    mechanism: str = ""

    @property
    def shares(self) -> bool:
        """Whether clients added noise in shares, which is private in sums alone."""
        return self.mechanism == "distributed"


def spent_by_round(
    folder: Path, name: str, job: Mapping[str, Any], *, delta: float | None = None, points: int = 24
) -> PrivacyAccount:
    """A run's spending so far.

    Args:
      folder: The run folder.
      name: The run's name.
      job: As the run keeps it.
      delta: At which to tell epsilon; by default the job's.
      points: At most about so many rounds are looked at, the last one among them, ≥ 2; each takes a moment.

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
        by_round=ledger.spent_by_round(name, delta=None if at is None else float(at), points=points),
        local=said.get("mechanism", "none") == "none",
        mechanism=_mechanism(said.get("mechanism"), job),
    )


def account_of(run: RunRecord, *, points: int = 24) -> PrivacyAccount | None:
    """A run's spending so far; None where it promises nothing, keeps no ledger, or has no delta to tell epsilon at.

    Args:
      run: The run.
      points: As in `spent_by_round`.

    Raises:
      StorageError: The ledger can't be read.
    """
    if not run.path or not isinstance(run.job.get("privacy"), Mapping):
        return None
    try:
        return spent_by_round(Path(run.path), run.name, run.job, points=points)
    except PrivacyError:
        return None


def _mechanism(said: object, job: Mapping[str, Any]) -> str:
    """The mechanism's name, or that of the stage by which clients add noise."""
    if isinstance(said, Mapping):
        return str(said.get("use", ""))
    stages = job.get("pipeline", {}).get("stages", ())
    names = [str(stage.get("use", "")) for stage in stages if isinstance(stage, Mapping)]
    return next((name for name in names if name.startswith("local_")), "")
