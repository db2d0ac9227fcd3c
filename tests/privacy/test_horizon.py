"""Looking ahead changes how often is accounted, and no answer."""

from __future__ import annotations

from collections import Counter
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import PrivacyError
from hanse.privacy import horizon
from hanse.privacy.accountant import epsilon
from hanse.privacy.budget import Budget
from hanse.privacy.events import Event, Gaussian, Laplace, PoissonSampled
from hanse.privacy.horizon import BudgetHorizon

EVENTS: list[Event] = [Gaussian(noise_multiplier=10), Gaussian(noise_multiplier=25), Gaussian(noise_multiplier=60)]


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
@settings(deadline=None, max_examples=30)
def test_answers_are_those_of_the_accountant(asked: list[Event]) -> None:
    watched, kept = BudgetHorizon(Budget(epsilon=2.0, delta=1e-5)), Counter[Event]()
    for event in asked:
        allowed = watched.allows(kept, event)
        assert allowed == (epsilon(kept + Counter([event]), 1e-5) <= 2.0)
        if allowed:
            kept[event] += 1


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Counts how often is accounted."""
    counted = Mock(side_effect=horizon.account)
    monkeypatch.setattr(horizon, "account", counted)
    return counted


def test_a_long_run_is_accounted_for_a_few_times(accounts: Mock) -> None:
    event = PoissonSampled(rate=0.01, event=Gaussian(noise_multiplier=1))
    watched, kept = BudgetHorizon(Budget(epsilon=1.8285, delta=1e-5)), Counter[Event]()
    while watched.allows(kept, event):
        kept[event] += 1
    assert kept[event] == 1000
    assert accounts.call_count < 30


def test_a_plan_that_fits_is_accounted_for_once(accounts: Mock) -> None:
    watched, kept = BudgetHorizon(Budget(epsilon=2.0, delta=1e-5)), Counter[Event]()
    for done in range(20):
        assert watched.allows(kept, EVENTS[1], planned=20 - done)
        kept[EVENTS[1]] += 1
    assert accounts.call_count == 1


@given(st.lists(st.sampled_from(EVENTS), max_size=40), st.integers(-3, 80))
@settings(deadline=None, max_examples=20)
def test_a_plan_changes_no_answer(asked: list[Event], planned: int) -> None:
    watched, kept = BudgetHorizon(Budget(epsilon=2.0, delta=1e-5)), Counter[Event]()
    for event in asked:
        allowed = watched.allows(kept, event, planned=planned)
        assert allowed == (epsilon(kept + Counter([event]), 1e-5) <= 2.0)
        if allowed:
            kept[event] += 1


def test_what_needs_a_delta_says_so() -> None:
    watched = BudgetHorizon(Budget(epsilon=1.0))
    assert watched.allows(Counter(), Laplace(noise_multiplier=1))
    with pytest.raises(PrivacyError, match="without delta"):
        watched.allows(Counter(), Gaussian(noise_multiplier=1))


def test_people_whose_releases_differ_are_each_accounted_for_a_few_times(accounts: Mock) -> None:
    """As clients of a site that hold different numbers of examples, round by round."""
    watched = BudgetHorizon(Budget(epsilon=2.0, delta=1e-5))
    for done in range(12):
        for event in EVENTS[1:]:
            assert watched.allows(Counter({event: done} if done else {}), event, planned=12 - done)
    assert accounts.call_count == len(EVENTS[1:])
