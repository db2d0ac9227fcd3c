"""Events: what may be said of a release, and that it is read back as it was written, or refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import PrivacyError, UnknownEventError
from hanse.privacy.event_json import event_from_dict, event_to_dict
from hanse.privacy.events import (
    KINDS,
    AdaptiveClipBits,
    Composed,
    CorrelatedGaussian,
    DiscreteGaussian,
    Disjoint,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    LocalEpsilon,
    NonPrivate,
    PoissonSampled,
    Repeated,
    Skellam,
)

POSITIVE = st.floats(1e-6, 1e6)
WHOLE = st.integers(1, 10**6)
LEAVES = st.one_of(
    st.builds(Gaussian, noise_multiplier=POSITIVE),
    st.builds(AdaptiveClipBits, noise_stddev=POSITIVE),
    st.builds(Laplace, noise_multiplier=POSITIVE),
    st.builds(Skellam, variance=POSITIVE, l2_sensitivity=POSITIVE, l1_sensitivity=POSITIVE),
    st.builds(
        DiscreteGaussian,
        stddev=POSITIVE,
        l2_sensitivity=POSITIVE,
        l1_sensitivity=POSITIVE,
        dimension=WHOLE,
        num_shares=WHOLE,
    ),
    st.builds(LocalEpsilon, epsilon=POSITIVE),
    st.builds(NonPrivate, reason=st.text(min_size=1)),
    st.builds(
        CorrelatedGaussian,
        correlation=st.sampled_from(["tree", "banded"]),
        noise_multiplier=POSITIVE,
        sensitivity=POSITIVE,
        rounds=WHOLE,
        participations=WHOLE,
        min_separation=WHOLE,
    ),
)
EVENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(PoissonSampled, rate=st.floats(1e-9, 1.0), event=inner),
        st.builds(FixedSizeSampled, sample=st.just(3), population=st.integers(3, 10**9), event=inner),
        st.builds(Composed, events=st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Repeated, event=inner, count=WHOLE),
        st.builds(Disjoint, partition=st.text(min_size=1), parts=st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


@given(EVENTS)
@settings(deadline=None, max_examples=150)
def test_events_are_read_back_exactly(event: Event) -> None:
    assert event_from_dict(json.loads(json.dumps(event_to_dict(event)))) == event


def test_every_kind_can_be_written() -> None:
    named = {type(event_from_dict(event_to_dict(event))) for event in EXAMPLES}
    assert named == set(KINDS)


EXAMPLES: tuple[Event, ...] = (
    Gaussian(noise_multiplier=1),
    AdaptiveClipBits(noise_stddev=5),
    Laplace(noise_multiplier=2),
    DiscreteGaussian(stddev=1.0, l2_sensitivity=1, l1_sensitivity=1, dimension=1),
    Skellam(variance=1, l2_sensitivity=1, l1_sensitivity=1),
    LocalEpsilon(epsilon=1),
    CorrelatedGaussian(
        correlation="tree", noise_multiplier=1, sensitivity=2, rounds=3, participations=1, min_separation=1
    ),
    NonPrivate(reason="statistics"),
    PoissonSampled(rate=0.5, event=Gaussian(noise_multiplier=1)),
    FixedSizeSampled(sample=1, population=2, event=Gaussian(noise_multiplier=1)),
    Composed(events=(Gaussian(noise_multiplier=1), LocalEpsilon(epsilon=1))),
    Repeated(event=Gaussian(noise_multiplier=1), count=2),
    Disjoint(partition="clients", parts=(Gaussian(noise_multiplier=1), LocalEpsilon(epsilon=1))),
)


def test_a_whole_number_and_the_same_float_are_one_event() -> None:
    assert Gaussian(noise_multiplier=1) == Gaussian(noise_multiplier=1.0)
    assert json.dumps(event_to_dict(Gaussian(noise_multiplier=1))) == json.dumps(
        event_to_dict(Gaussian(noise_multiplier=1.0))
    )


BAD: tuple[tuple[type[Any], dict[str, Any]], ...] = (
    (Gaussian, {"noise_multiplier": math.nan}),
    (Gaussian, {"noise_multiplier": math.inf}),
    (Gaussian, {"noise_multiplier": -1e-9}),
    (Gaussian, {"noise_multiplier": "1"}),
    (Gaussian, {"noise_multiplier": True}),
    (AdaptiveClipBits, {"noise_stddev": -1}),
    (Laplace, {"noise_multiplier": None}),
    (LocalEpsilon, {"epsilon": -0.5}),
    (NonPrivate, {"reason": ""}),
    (DiscreteGaussian, {"stddev": 1, "l2_sensitivity": 0, "l1_sensitivity": 1, "dimension": 1}),
    (DiscreteGaussian, {"stddev": 1, "l2_sensitivity": 1, "l1_sensitivity": 1, "dimension": 1.5}),
    (DiscreteGaussian, {"stddev": 1, "l2_sensitivity": 1, "l1_sensitivity": 1, "dimension": 1, "num_shares": 0}),
    (Skellam, {"variance": 1, "l2_sensitivity": 1, "l1_sensitivity": -1}),
    (PoissonSampled, {"rate": 0, "event": Gaussian(noise_multiplier=1)}),
    (PoissonSampled, {"rate": 1.01, "event": Gaussian(noise_multiplier=1)}),
    (PoissonSampled, {"rate": 0.1, "event": "gaussian"}),
    (FixedSizeSampled, {"sample": 3, "population": 2, "event": Gaussian(noise_multiplier=1)}),
    (FixedSizeSampled, {"sample": 0, "population": 2, "event": Gaussian(noise_multiplier=1)}),
    (Composed, {"events": ()}),
    (Composed, {"events": [Gaussian(noise_multiplier=1)]}),
    (Composed, {"events": (1,)}),
    (Repeated, {"event": Gaussian(noise_multiplier=1), "count": 0}),
    (Repeated, {"event": Gaussian(noise_multiplier=1), "count": True}),
)


@pytest.mark.parametrize(("kind", "arguments"), BAD)
def test_impossible_values_are_refused(kind: type[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError, match="wanted"):
        kind(**arguments)


WRITTEN = {"version": 1, "event": {"kind": "gaussian", "noise_multiplier": 1.0}}


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"version": 1},
        {**WRITTEN, "more": 1},
        {"version": 1, "event": None},
        {"version": 1, "event": {"noise_multiplier": 1.0}},
        {"version": 1, "event": {"kind": "gaussian"}},
        {"version": 1, "event": {"kind": "gaussian", "noise_multiplier": 1.0, "sigma": 2.0}},
        {"version": 1, "event": {"kind": "gaussian", "noise_multiplier": "1.0"}},
        {"version": 1, "event": {"kind": ["gaussian"], "noise_multiplier": 1.0}},
        {"version": 1, "event": {"kind": "composed", "events": 3}},
        {"version": 1, "event": {"kind": "composed", "events": []}},
        {"version": 1, "event": {"kind": "repeated", "count": 2, "event": 3}},
    ],
)
def test_what_is_not_written_so_is_refused(values: object) -> None:
    with pytest.raises(PrivacyError):
        event_from_dict(values)


@pytest.mark.parametrize("version", [0, 2, "1", True, 1.0])
def test_other_versions_are_unknown(version: object) -> None:
    with pytest.raises(UnknownEventError, match="this Hanse reads version 1"):
        event_from_dict({**WRITTEN, "version": version})


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UnknownEventError, match="gausian") as caught:
        event_from_dict({"version": 1, "event": {"kind": "gausian", "noise_multiplier": 1.0}})
    assert "did you mean `gaussian`" in str(caught.value)


def test_deep_nesting_is_refused_before_the_stack_ends() -> None:
    event: dict[str, Any] = {"kind": "gaussian", "noise_multiplier": 1.0}
    for _ in range(5000):
        event = {"kind": "repeated", "count": 1, "event": event}
    with pytest.raises(PrivacyError, match="nested deeper"):
        event_from_dict({"version": 1, "event": event})


def test_something_else_is_no_event() -> None:
    with pytest.raises(UnknownEventError):
        event_to_dict(object())  # type: ignore[arg-type]
