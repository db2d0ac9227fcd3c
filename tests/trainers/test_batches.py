"""The order in which a client sees its examples."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.local_work import LocalWork
from hanse.trainers.batches import passes


@settings(deadline=None)
@given(count=st.integers(2, 50), size=st.integers(1, 49), seed=st.integers(0, 2**63 - 1))
def test_every_pass_holds_every_example_once(count: int, size: int, seed: int) -> None:
    orders = list(passes(LocalWork(epochs=3, batch_size=min(size, count - 1)), count, seed))
    assert len(orders) == 3
    for order in orders:
        assert order is not None
        assert sorted(order.tolist()) == list(range(count))


def test_golden_order_never_changes() -> None:
    orders = [order.tolist() for order in passes(LocalWork(epochs=2, batch_size=2), 6, 5) if order is not None]
    assert orders == GOLDEN


@pytest.mark.parametrize("fields", [{"shuffle": False}, {"batch_size": "all"}, {"batch_size": 10}])
def test_no_order_is_drawn_where_it_does_not_matter(fields: dict[str, Any]) -> None:
    assert list(passes(LocalWork(**{"epochs": 2, "batch_size": 2, **fields}), 6, 5)) == [None, None]


def test_steps_never_end() -> None:
    orders = list(islice(passes(LocalWork(steps=1, batch_size=2), 6, 5), 100))
    assert len(orders) == 100
    assert len({tuple(order.tolist()) for order in orders if order is not None}) > 50


def test_depends_on_the_seed_only() -> None:
    one, same, other = (next(passes(LocalWork(batch_size=2), 40, seed)) for seed in (5, 5, 6))
    assert one is not None
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


GOLDEN = [[2, 4, 3, 0, 1, 5], [3, 0, 2, 4, 1, 5]]
