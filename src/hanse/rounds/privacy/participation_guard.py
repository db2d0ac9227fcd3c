"""`ParticipationGuard`: holds a run's cohorts to the limits that its privacy was accounted for with."""

from __future__ import annotations

from collections.abc import Iterable

from hanse.core.errors import PrivacyError
from hanse.privacy.participation import Participation


class ParticipationGuard:
    """Remembers for each client how often and when it was last asked to take part.

    Args:
      limits: What may not be exceeded.
    """

    def __init__(self, limits: Participation) -> None:
        self._limits = limits
        self._seen: dict[str, tuple[int, int]] = {}

    def admit(self, number: int, cohort: Iterable[str]) -> None:
        """Take note of a round's cohort.

        Args:
          number: The round; rounds come in order.
          cohort: Who is asked.

        Raises:
          PrivacyError: A client would take part too often, or too soon; no client was noted.
        """
        limits, clients = self._limits, tuple(cohort)
        for client in clients:
            times, last = self._seen.get(client, (0, -limits.min_separation))
            if times >= limits.most or number - last < limits.min_separation:
                raise PrivacyError(
                    f"round {number}: `{client}` took part {times} times, last in round {last}; privacy was accounted "
                    f"for with at most {limits.most} times, and {limits.min_separation} rounds from one to the next",
                    hint="the cohort's selector does not keep to the limits that it names",
                )
        for client in clients:
            self._seen[client] = self._seen.get(client, (0, 0))[0] + 1, number
