"""Splits of a client's rows: disjoint, complete, in proportion, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import DataError
from hanse.data.split import Split, held_back, split_positions

FRACTIONS = st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).filter(lambda f: sum(f) < 0.999)


@given(
    labels=st.lists(st.integers(0, 4), max_size=120),
    fractions=FRACTIONS,
    stratify=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=300)
def test_parts_are_disjoint_complete_and_of_the_right_size(
    labels: list[int], fractions: tuple[float, float], stratify: bool, seed: int
) -> None:
    split = Split(validation=fractions[0], test=fractions[1], stratify=stratify)
    count = len(labels)
    parts = split_positions(count, np.array(labels, dtype=np.int64), split, seed, "a")
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    train, validation, test = (len(part) for part in parts)
    assert abs(validation - count * split.validation) <= 1
    assert abs(test - count * split.test) <= 1
    assert abs(train - count * (1 - split.validation - split.test)) <= 1 + 1e-9
    assert train >= 1 or not count
    again = split_positions(count, np.array(labels, dtype=np.int64), split, seed, "a")
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    kept = held_back(np.array([count]), split)
    assert (validation, test) == (int(kept[0][0]), int(kept[1][0]))


@given(counts=st.lists(st.integers(0, 60), min_size=2, max_size=5), seed=st.integers(0, 99), fractions=FRACTIONS)
@settings(deadline=None, max_examples=200)
def test_stratified_parts_keep_the_proportions(counts: list[int], seed: int, fractions: tuple[float, float]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    split = Split(validation=fractions[0], test=fractions[1])
    parts = split_positions(len(labels), labels, split, seed, "a")
    for part in parts[1:]:
        for label, held in enumerate(np.bincount(labels[part], minlength=len(counts))):
            exact = counts[label] * len(part) / max(len(labels), 1)
            # each of the two systematic samples, one within the other, is off by less than one
            assert abs(held - exact) < 2


def test_hand_computed_sizes() -> None:
    split = Split(validation=0.25, test=0.25)
    validation, test = held_back(np.array([0, 1, 2, 3, 4, 8, 100]), split)
    assert validation.tolist() == [0, 0, 0, 1, 1, 2, 25]
    assert test.tolist() == [0, 0, 0, 1, 1, 2, 25]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_tiny_clients_keep_a_row_to_train_on(count: int) -> None:
    for fraction in (0.1, 0.3, 0.49):
        parts = split_positions(count, None, Split(validation=fraction, test=fraction), 0, "a")
        assert sum(len(part) for part in parts) == count
        assert len(parts[0]) >= min(count, 1)


def test_every_row_is_equally_likely_to_be_kept_back() -> None:
    # five rows of one class and one of another: without a random start the lone one would never be tested.
    # 1,200 clients, probability 1/3: 5 standard deviations are 0.07
    labels = np.array([0, 0, 0, 0, 0, 1])
    split = Split(test=1 / 3)
    tested = np.zeros(6)
    for i in range(1200):
        tested[split_positions(6, labels, split, 0, f"client-{i}")[2]] += 1
    assert np.abs(tested / 1200 - 1 / 3).max() < 0.07


def test_clients_and_seeds_are_split_differently() -> None:
    split = Split(test=0.5)
    first = split_positions(40, None, split, 0, "a")[2].tolist()
    assert split_positions(40, None, split, 0, "b")[2].tolist() != first
    assert split_positions(40, None, split, 1, "a")[2].tolist() != first


def test_no_split_keeps_the_order() -> None:
    train, validation, test = split_positions(5, None, Split(), 0, "a")
    assert train.tolist() == [0, 1, 2, 3, 4]
    assert not len(validation)
    assert not len(test)


@pytest.mark.parametrize("wrong", [{"validation": -0.1}, {"test": 1.0}, {"validation": 0.5, "test": 0.5}])
def test_fractions_that_leave_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="leaves nothing to train on"):
        Split(**wrong)


def test_nan_is_refused() -> None:
    with pytest.raises(DataError):
        Split(test=float("nan"))
