"""`run_cell`: one attack against one rule, simulated in this process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hanse.core.errors import HanseError, RunError, RunInterrupted, StorageError, TooFewClientsError, UpdateError
from hanse.jobs.assemble import build_simulation
from hanse.jobs.build import FAILED, Builder
from hanse.jobs.job import job_from_values
from hanse.robustness.plan import Place, Plan
from hanse.simulation.simulate import run_simulation

Status = Literal["ran", "not run", "failed"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a cell.

    Args:
      status: Whether it ran to its end.
      accuracy: Of the last model on examples that nobody trains on, in [0, 1]; None where it did not.
      success: Of a backdoor, in [0, 1]; None without one.
      reason: Why it was not run, or did not come to its end; else empty.
    """

    status: Status
    accuracy: float | None = None
    success: float | None = None
    reason: str = ""


def reason_not_to_run(plan: Plan, place: Place) -> str:
    """Why the rule refuses so many attackers among so many clients; empty where it does not.

    Raises:
      HanseError: The rule can't be built.
    """
    builder = Builder()
    table = plan.rule(place.rule).aggregator(place.share)
    aggregator, _ = builder.choose("aggregator", table, "pipeline.aggregator")
    builder.raise_problems(f"rule `{place.rule}`")
    assert aggregator is not FAILED
    if not hasattr(aggregator, "check_number"):
        return ""
    try:
        aggregator.check_number(plan.setup.clients)
    except TooFewClientsError as refusal:
        return refusal.message
    return ""


def run_cell(plan: Plan, place: Place, *, workers: int = 1, data_dir: Path | None = None) -> Found:
    """Run a cell, unless its rule refuses.

    A run that fails is a result, too.

    Args:
      plan: The table.
      place: Which cell.
      workers: Processes that its clients run in.
      data_dir: Folder of data sets.

    Raises:
      RunInterrupted: Stopped by Ctrl-C or SIGTERM.
      HanseError: It can't be built: the data is missing, or a part can't be had.
    """
    reason = reason_not_to_run(plan, place)
    if reason:
        return Found(status="not run", reason=reason)
    values = plan.job(place) | {"simulation": {"workers": workers}}
    simulation = build_simulation(job_from_values(values, source=f"the job of {place.attack}", data_dir=data_dir))
    try:
        history = run_simulation(simulation).history
    except (RunInterrupted, StorageError):
        raise
    except (RunError, UpdateError) as error:
        return Found(status="failed", reason=_one_line(error))
    last = history.last
    measured = None if last is None else last.central or last.federated
    accuracy = None if measured is None else measured.get("accuracy")
    if last is None or accuracy is None or not math.isfinite(accuracy):
        return Found(status="failed", reason="no accuracy was measured after the last round")
    return Found(status="ran", accuracy=accuracy, success=last.attack.get("success"))


def _one_line(error: HanseError) -> str:
    return " ".join(error.message.split())
