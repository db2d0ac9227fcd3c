"""How many clients could not train, of those whose failures say something of the job."""

from __future__ import annotations

from collections.abc import Iterable

from hanse.core.messages import ReplyFailure
from hanse.rounds.history import FailureRecord, RoundRecord


def num_lost(record: RoundRecord) -> int:
    """Clients that could not train in an abandoned round; a record's failures are those in evaluation too."""
    if record.status != "abandoned":
        return 0
    cohort = set(record.cohort)
    return num_telling([failure for failure in record.failures if failure.client in cohort])


def num_telling(failures: Iterable[FailureRecord]) -> int:
    """Clients whose failures say something of the job; a site that is away says nothing."""
    return len({failure.client for failure in failures if failure.kind != ReplyFailure.LOST})
