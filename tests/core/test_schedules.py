"""Learning-rate schedules by hand."""

from __future__ import annotations

from typing import Any

import pytest

from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.core.schedules import Constant, Cosine, Exponential, Schedule, Step


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), {1: 1, 2: 1, 1000: 1}),
        (Exponential(decay=0.5), {1: 1, 2: 0.5, 4: 0.125}),
        (Step(every=3, decay=0.1), {1: 1, 3: 1, 4: 0.1, 6: 0.1, 7: 0.01}),
        (Cosine(rounds=4), {1: 1, 2: 0.8535533905932737, 3: 0.5, 5: 0, 9: 0}),
        (Cosine(rounds=2, floor=0.2), {1: 1, 2: 0.6, 3: 0.2, 100: 0.2}),
    ],
)
def test_by_hand(schedule: Schedule, factors: dict[int, float]) -> None:
    for round_number, factor in factors.items():
        assert schedule.factor(round_number) == pytest.approx(factor, abs=1e-15)


def test_multiplies_the_optimisers_rate() -> None:
    work = LocalWork(optimizer=SGD(lr=0.4), schedule=Exponential(decay=0.5))
    assert [work.lr(n) for n in (1, 2, 3)] == [0.4, 0.2, 0.1]


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Exponential(decay=0.0), "decay"),
        (lambda: Exponential(decay=1.1), "decay"),
        (lambda: Step(every=0), "every"),
        (lambda: Step(every=1, decay=-1.0), "decay"),
        (lambda: Cosine(rounds=0), "rounds"),
        (lambda: Cosine(rounds=1, floor=1.5), "floor"),
    ],
)
def test_refuses_settings_outside_their_range(make: Any, where: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert caught.value.where == where
