"""What is not told of rounds whose cohorts are secret: who took part, how many did, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hanse.core.events import ClientFailed, ClientFinished, Event, RoundFinished, RoundStarted
from hanse.federation.server.logs import LOGGER
from hanse.rounds.history import RoundRecord
from hanse.rounds.record_json import record_from_json, record_to_json

UNTOLD_COHORTS = "secret_cohorts"
"""The fact under which a run keeps that its cohorts are secret."""


def as_told(run: str, event: Event) -> Event | None:
    """An event as it is told to those who watch; None where nothing is. Failures go to the coordinator's own log."""
    if isinstance(event, ClientFailed):
        about = {"run": run, "round": event.round, "client": event.client, "kind": event.kind}
        LOGGER.info("a client failed: %s", event.message, extra=about)
        return None
    if isinstance(event, ClientFinished):
        return None
    if isinstance(event, RoundStarted):
        return replace(event, cohort=())
    if isinstance(event, RoundFinished):
        return replace(event, num_updates=0, num_failures=0, bytes_up=0, bytes_down=0, seconds={}, note="")
    return event


def record_as_told(values: Mapping[str, Any]) -> dict[str, Any]:
    """A round's record, as JSON values, with what may be told of it."""
    record = record_from_json(values)
    kept = RoundRecord(
        round=record.round,
        status=record.status,
        central=record.central,
        stages=record.stages,
        measured=record.measured,
    )
    return record_to_json(kept)
