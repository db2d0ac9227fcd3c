"""`BudgetHorizon`: whether a release fits into a budget, without accounting for each one anew.

Cost only grows when releases are added. So once a collection of releases is known to fit, every part of it fits, and
what contains one that does not fit does not either. Looking some repetitions ahead, a run of a thousand equal rounds is
accounted for a few dozen times and not a thousand, and the answer is the same.
"""

from __future__ import annotations

from collections import Counter

from hanse.privacy.accountant import account
from hanse.privacy.budget import Budget
from hanse.privacy.events import Event
from hanse.privacy.neighbours import Neighbours

_AHEAD = (1024, 256, 64, 16, 4)
_KEPT = 64  # collections known not to fit; bounded memory
_KEPT_WITHIN = 4096  # known to fit, one for each set of events: clients of many sizes have as many


class BudgetHorizon:
    """What is known to fit into a budget, and what not.

    Args:
      budget: What all releases together may cost.
      neighbours: The relation to account under; by default the one that the events have in common.
    """

    def __init__(self, budget: Budget, neighbours: Neighbours | None = None) -> None:
        self._budget = budget
        self._neighbours = neighbours
        self._within: dict[frozenset[Event], Counter[Event]] = {}
        self._over: list[Counter[Event]] = []

    def allows(self, events: Counter[Event], event: Event, *, planned: int = 0) -> bool:
        """Whether `events`, and `event` once more, cost no more than the budget.

        Args:
          events: What was released.
          event: What is to be released.
          planned: How often it will be, this time included, as far as anybody knows: looked at first. No answer depends
            on it.

        Raises:
          UnknownEventError: The events can't be accounted for together.
          PrivacyError: The budget has no delta, and an event needs one.
        """
        wanted = events + Counter({event: 1})
        if wanted <= self._within.get(frozenset(wanted), Counter()):
            return True
        return any(
            self._fits(events + Counter({event: ahead})) for ahead in (*([planned] if planned > 1 else []), *_AHEAD, 1)
        )

    def _fits(self, events: Counter[Event]) -> bool:
        if any(over <= events for over in self._over):
            return False
        if account(events, delta=self._budget.delta, neighbours=self._neighbours).epsilon <= self._budget.epsilon:
            kinds = frozenset(events)
            self._within.pop(kinds, None)
            self._within[kinds] = events
            if len(self._within) > _KEPT_WITHIN:
                del self._within[next(iter(self._within))]
            return True
        self._over = [*(over for over in self._over if not events <= over), events][-_KEPT:]
        return False
