"""Noise from a budget, and whether given noise keeps one."""

from __future__ import annotations

from collections.abc import Callable

from hanse.core.errors import PrivacyBudgetError, PrivacyError
from hanse.privacy.accountant import account
from hanse.privacy.budget import Budget
from hanse.privacy.calibration import noise_for_budget, rounds_for_budget
from hanse.privacy.events import Event, Repeated


def calibrated(budget: Budget | None, plan: Callable[[float], Event]) -> float:
    """The noise multiplier with which a plan just keeps the budget.

    Raises:
      PrivacyError: There is no budget.
      PrivacyBudgetError: No noise keeps it.
    """
    if budget is None:
        raise PrivacyError(
            "privacy: neither a noise_multiplier nor a budget",
            hint="for example budget = { epsilon = 4.0, delta = 1e-6 }",
        )
    return noise_for_budget(plan, budget).noise_multiplier


def check_budget(budget: Budget, event: Event, rounds: int | None = None) -> None:
    """Whether a release in each of so many rounds, or one for the whole run, is within the budget.

    Raises:
      PrivacyBudgetError: It is not; the message says how many rounds would be.
    """
    spent = account([event if rounds is None else Repeated(event=event, count=rounds)], delta=budget.delta)
    if spent.epsilon <= budget.epsilon:
        return
    if rounds is None:
        raise PrivacyBudgetError(
            f"the run with this noise costs ε = {spent.epsilon:.4g}, the budget is {budget}",
            hint="leave noise_multiplier out, and the budget settles it",
        )
    allowed = rounds_for_budget(event, budget, limit=rounds)
    raise PrivacyBudgetError(
        f"{rounds:,} rounds with this noise cost ε = {spent.epsilon:.4g}, the budget is {budget}",
        hint=f"it allows {allowed:,} rounds; or leave noise_multiplier out, and the budget settles it",
    )
