"""Clients' steps as an accountant sees them: nobody costs more than the one that stands for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.local_work import LocalWork
from hanse.rounds.privacy.steps import client_steps, frontier

WORK = st.builds(
    LocalWork,
    batch_size=st.one_of(st.integers(1, 300), st.just("all")),
    epochs=st.integers(1, 3),
    steps=st.one_of(st.none(), st.integers(1, 20)),
)


@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=40), WORK, st.integers(1, 7))
@settings(deadline=None, max_examples=200)
def test_the_last_with_no_more_examples_is_placed_worse(sizes: list[int], work: LocalWork, most: int) -> None:
    found = frontier(np.array(sizes), work, most=most)
    assert 1 <= len(found) <= most
    assert [kind.num_examples for kind in found] == sorted({kind.num_examples for kind in found})
    for size in sizes:
        own = client_steps(work, size)
        stands_for = [kind for kind in found if kind.num_examples <= size][-1]
        assert (own.rate <= stands_for.rate, own.steps <= stands_for.steps) == (True, True)


def test_no_more_kinds_than_needed_and_each_a_client() -> None:
    work = LocalWork(batch_size=100)
    found = frontier(np.array([50, 90, 100, 101, 150, 200, 450]), work)
    assert [(kind.num_examples, kind.rate, kind.steps) for kind in found] == [
        (50, 1.0, 1),
        (101, pytest.approx(100 / 101), 2),
        (450, pytest.approx(100 / 450), 5),
    ]
    assert frontier(np.array([10, 20, 400]), LocalWork(batch_size="all")) == (
        client_steps(LocalWork(batch_size="all"), 10),
    )
