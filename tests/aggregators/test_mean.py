"""The weighted mean: oracle by hand, float64 sums, merging, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.aggregators.mean import Mean, RunningSum, add_scaled, mean_of
from hanse.core.errors import SpecMismatchError, TooFewClientsError
from hanse.core.messages import Update
from hanse.core.params import Params
from hanse.testing.fakes import make_update


def total(updates: list[Update], weights: list[float]) -> RunningSum:
    accumulator = Mean().zero(updates[0].delta.spec)
    for update, weight in zip(updates, weights, strict=True):
        accumulator = Mean().accumulate(accumulator, update, weight)
    return accumulator


def test_by_hand() -> None:
    updates = [make_update([1.0, 2.0], num_examples=1), make_update([4.0, -2.0], num_examples=3)]
    mean = mean_of(updates, [1.0, 3.0])
    assert mean.delta.numpy().tolist() == [3.25, -1.0]
    assert mean.delta.numpy().dtype == np.float32
    assert (mean.num_clients, mean.num_examples) == (2, 4)
    assert mean_of(updates, [1.0, 1.0]).delta.numpy().tolist() == [2.5, 0.0]


def test_extras_are_averaged_likewise() -> None:
    updates = [make_update([0.0], extras={"c": [1.0, 0.0]}), make_update([0.0], extras={"c": [0.0, 1.0]})]
    mean = mean_of(updates, [3.0, 1.0])
    assert mean.extras["c"].numpy().tolist() == [0.75, 0.25]


def test_one_update_is_its_own_mean() -> None:
    update = make_update(np.random.default_rng(0).normal(size=100).tolist())
    for weight in (1.0, 600.0, 1e-3):
        np.testing.assert_array_equal(mean_of([update], [weight]).delta.numpy(), update.delta.numpy())


def test_sums_in_float64() -> None:
    # in float32 one is lost beside 2^24, and so is every one of the thousand that follow
    values = [2.0**24] + [1.0] * 1000
    mean = mean_of([make_update([value]) for value in values], [1.0] * 1001)
    assert mean.delta.numpy()[0] == np.float32((2**24 + 1000) / 1001)
    naive = np.float32(0)
    for value in values:
        naive += np.float32(value)
    assert naive / np.float32(1001) != mean.delta.numpy()[0]


def test_longer_than_a_block() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, (1 << 14) * 2 + 17)).astype(np.float32)
    weights = [1.0, 2.0, 3.5, 0.0, 7.0]
    mean = mean_of([make_update(vector) for vector in vectors], weights)
    wanted = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_array_equal(mean.delta.numpy(), wanted.astype(np.float32))


@settings(deadline=None, max_examples=50)
@given(length=st.integers(0, 40000), scale=st.floats(-1e3, 1e3), kind=st.sampled_from([np.float32, np.float64]))
def test_add_scaled_is_what_it_says(length: int, scale: float, kind: type) -> None:
    vector = np.linspace(-3, 5, length, dtype=kind)
    sums = np.linspace(1, 2, length)
    wanted = sums + scale * vector.astype(np.float64)
    add_scaled(sums, vector, scale)
    np.testing.assert_allclose(sums, wanted, rtol=1e-15, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(0.015625, 100)), min_size=1, max_size=8),
    cut=st.integers(0, 8),
)
def test_merging_parts_is_accumulating_all(values: list[tuple[float, float]], cut: int) -> None:
    updates = [make_update([value, -value], extras={"c": [value]}) for value, _ in values]
    weights = [weight for _, weight in values]
    rule = Mean()
    whole = rule.finish(total(updates, weights))
    left, right = rule.zero(updates[0].delta.spec), rule.zero(updates[0].delta.spec)
    for i, (update, weight) in enumerate(zip(updates, weights, strict=True)):
        if i < cut:
            left = rule.accumulate(left, update, weight)
        else:
            right = rule.accumulate(right, update, weight)
    merged = rule.finish(rule.merge(left, right))
    np.testing.assert_allclose(merged.delta.numpy(), whole.delta.numpy(), rtol=1e-6)
    np.testing.assert_allclose(merged.extras["c"].numpy(), whole.extras["c"].numpy(), rtol=1e-6)
    assert (merged.num_clients, merged.num_examples) == (whole.num_clients, whole.num_examples)
    low, high = np.float32(min(v for v, _ in values)), np.float32(max(v for v, _ in values))
    assert low <= whole.delta.numpy()[0] <= high


def test_updates_are_not_changed() -> None:
    update = make_update([1.0, 2.0])
    mean_of([update, update], [2.0, 5.0])
    assert update.delta.numpy().tolist() == [1.0, 2.0]


class TestRefusals:
    def test_nothing(self) -> None:
        with pytest.raises(TooFewClientsError):
            mean_of([], [])
        with pytest.raises(TooFewClientsError):
            Mean().finish(Mean().zero(make_update([1.0]).delta.spec))

    @pytest.mark.parametrize("weight", [0.0, math.nan])
    def test_no_weight(self, weight: float) -> None:
        with pytest.raises(TooFewClientsError, match="positive weight"):
            mean_of([make_update([1.0]), make_update([2.0])], [weight, weight])

    def test_another_layout_says_who_and_what(self) -> None:
        other = make_update([1.0, 2.0, 3.0], client="site-3", round_number=12)
        with pytest.raises(SpecMismatchError, match=r"round 12: client `site-3`: .*`w` as float32\[3\]; wanted"):
            mean_of([make_update([1.0, 2.0]), other], [1.0, 1.0])

    @pytest.mark.parametrize("extras", [{}, {"d": [1.0, 2.0]}, {"c": [1.0]}, {"c": [1.0, 2.0, 3.0]}])
    def test_other_extras_leave_no_trace(self, extras: dict[str, list[float]]) -> None:
        rule, good = Mean(), make_update([1.0], extras={"c": [1.0, 2.0]})
        accumulator = rule.accumulate(rule.zero(good.delta.spec), good, 1.0)
        with pytest.raises(SpecMismatchError, match="site-3"):
            rule.accumulate(accumulator, make_update([100.0], client="site-3", extras=extras), 1.0)
        mean = rule.finish(accumulator)
        assert mean.delta.numpy().tolist() == [1.0]
        assert mean.extras["c"].numpy().tolist() == [1.0, 2.0]
        assert mean.num_clients == 1

    @pytest.mark.parametrize(
        "other",
        [
            make_update([1.0, 2.0]),
            make_update([1.0], extras={"c": [1.0]}),
            make_update([1.0], extras={"c": [1.0, 2.0], "d": [1.0]}),
            make_update([1.0]),
        ],
    )
    def test_merge_of_unlike_sums(self, other: Update) -> None:
        left = total([make_update([1.0], extras={"c": [1.0, 2.0]})], [1.0])
        with pytest.raises(SpecMismatchError, match="merge"):
            Mean().merge(left, total([other], [1.0]))
        assert left.delta.tolist() == [1.0]


def test_streams() -> None:
    assert Mean().needs_all is False


def test_memory_does_not_grow_with_the_cohort() -> None:
    update = make_update(np.zeros(1000, np.float32))
    accumulator = total([update] * 50, [1.0] * 50)
    assert accumulator.delta.nbytes == 8000
    assert not any(isinstance(value, Params) for value in vars_of(accumulator))


def vars_of(accumulator: RunningSum) -> list[object]:
    return [getattr(accumulator, name) for name in RunningSum.__dataclass_fields__]
