"""Parallel composition: each part by itself, over all releases, and then the worst."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import PrivacyError, UnknownEventError
from hanse.privacy.accountant import account, costliest, delta, epsilon
from hanse.privacy.disjoint import by_place
from hanse.privacy.events import Composed, Disjoint, Event, Gaussian, NonPrivate, PoissonSampled, Repeated
from hanse.privacy.neighbours import neighbours_of

LOW, HIGH = Gaussian(noise_multiplier=3.0), Gaussian(noise_multiplier=2.0)


def apart(*parts: Event, partition: str = "clients") -> Disjoint:
    return Disjoint(partition=partition, parts=parts)


def test_one_release_costs_what_its_worst_part_does() -> None:
    assert account(apart(LOW, HIGH), delta=1e-5) == account(HIGH, delta=1e-5)
    assert delta(apart(LOW, HIGH), 1.0) == delta(HIGH, 1.0)


def test_parts_are_added_up_before_the_worst_is_taken() -> None:
    """By hand: two releases in which the parts change places cost one of each, and not twice the worse."""
    both = epsilon([apart(LOW, HIGH), apart(HIGH, LOW)], 1e-5)
    assert both == pytest.approx(epsilon([LOW, HIGH], 1e-5))
    assert both < epsilon([HIGH, HIGH], 1e-5)


def test_what_is_released_of_all_is_added_to_each_part() -> None:
    everybody = Gaussian(noise_multiplier=1.0)
    assert epsilon([everybody, apart(LOW, HIGH)], 1e-5) == epsilon([everybody, HIGH], 1e-5)


def test_two_partitions_meet_in_their_worst_parts() -> None:
    other = apart(Gaussian(noise_multiplier=9.0), Gaussian(noise_multiplier=1.5), partition="wards")
    assert epsilon([apart(LOW, HIGH), other], 1e-5) == epsilon([HIGH, Gaussian(noise_multiplier=1.5)], 1e-5)
    assert len(by_place({apart(LOW, HIGH): 1, other: 1})) == 4


@given(
    st.lists(
        st.tuples(st.floats(0.05, 1.0), st.floats(0.8, 4.0), st.integers(1, 5)), min_size=1, max_size=3, unique=True
    ),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=4)
def test_repeated_it_costs_what_the_worst_part_does_repeated(kinds: list[tuple[float, float, int]], times: int) -> None:
    parts = tuple(
        Repeated(event=PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=noise)), count=count)
        for rate, noise, count in kinds
    )
    alone = [epsilon(Repeated(event=part, count=times), 1e-5) for part in parts]
    found = epsilon(Repeated(event=Disjoint(partition="p", parts=parts), count=times), 1e-5)
    # a part whose Renyi bound is below another's cost is not looked at, and costs no more than that
    assert found == pytest.approx(max(alone), abs=2e-3)
    assert alone[costliest([Repeated(event=part, count=times) for part in parts], delta=1e-5)] == found


def test_without_protection_in_one_part_there_is_none() -> None:
    assert epsilon(apart(LOW, NonPrivate(reason="a sum")), 1e-5) == float("inf")


def test_relations_are_those_of_all_parts() -> None:
    assert neighbours_of([apart(LOW, PoissonSampled(rate=0.5, event=LOW))]) == "add-or-remove-one"
    assert account(Repeated(event=apart(LOW, HIGH), count=2), delta=1e-5, neighbours="zero-out-one").epsilon > 0


def test_nesting() -> None:
    inner = Composed(events=(apart(LOW, HIGH), LOW))
    assert epsilon(inner, 1e-5) == epsilon([HIGH, LOW], 1e-5)
    assert epsilon(apart(apart(LOW, HIGH, partition="wards"), LOW), 1e-5) == epsilon(HIGH, 1e-5)


def test_bad_input() -> None:
    with pytest.raises(PrivacyError, match="2 parts in one release and 3 in another"):
        account([apart(LOW, HIGH), apart(LOW, HIGH, LOW)], delta=1e-5)
    with pytest.raises(UnknownEventError, match="Disjoint inside a sample"):
        account(PoissonSampled(rate=0.1, event=apart(LOW, HIGH)), delta=1e-5)
    with pytest.raises(PrivacyError, match="at most 256"):
        account([apart(*8 * [LOW], HIGH, partition=name) for name in "abc"], delta=1e-5)
    with pytest.raises(PrivacyError, match="partition"):
        Disjoint(partition="", parts=(LOW,))
    with pytest.raises(PrivacyError, match="parts"):
        Disjoint(partition="p", parts=())
