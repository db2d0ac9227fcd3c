"""`LocalWork`: what it counts, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.corrections import Proximal
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork


@settings(deadline=None)
@given(
    examples=st.integers(1, 200),
    size=st.one_of(st.just("all"), st.integers(1, 250)),
    epochs=st.integers(1, 4),
    accumulate=st.integers(1, 5),
)
def test_steps_cover_every_example(examples: int, size: Any, epochs: int, accumulate: int) -> None:
    work = LocalWork(batch_size=size, epochs=epochs, accumulate=accumulate)
    length = work.batch_length(examples)
    steps, rest = divmod(work.num_steps(examples), epochs)
    assert rest == 0
    assert (steps - 1) * length * accumulate < examples <= steps * length * accumulate


def test_steps_overrule_epochs() -> None:
    assert LocalWork(epochs=3, steps=7).num_steps(1000) == 7


def test_batch_of_all() -> None:
    assert LocalWork(batch_size="all").batch_length(17) == 17
    assert LocalWork(batch_size="all").num_steps(17) == 1
    assert LocalWork(batch_size=64).batch_length(17) == 17
    assert LocalWork(batch_size="all").batch_length(0) == 1


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"epochs": 0}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"accumulate": 0}, "accumulate"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "al"}, "batch_size"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm"),
        ({"upload": "gradients"}, "upload"),
        ({"upload": "gradient", "correction": Proximal(mu=0.1)}, "correction"),
        ({"upload": "gradient", "personal": ("head.*",)}, "personal"),
    ],
)
def test_refuses(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingError) as caught:
        LocalWork(**fields)
    assert caught.value.where == where
