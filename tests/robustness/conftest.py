from __future__ import annotations

from collections.abc import Callable

import pytest

from hanse.robustness.cells import Found, reason_not_to_run
from hanse.robustness.entries import MEAN, NONE
from hanse.robustness.plan import Place, Plan, Wanted, make_plan


class Silent:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.left: list[float] = []

    def begun(self, done: int, total: int) -> None:
        self.done.append(done)

    def ended(self, place: Place, found: Found, seconds_left: float) -> None:
        self.left.append(seconds_left)


class Pretended:
    """Runs cells without training: a figure that depends on the place alone; `stop_at` raises before that call."""

    def __init__(self, stop_at: int | None = None, error: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        self.ran: list[Place] = []
        self.stop_at = stop_at
        self.error = error

    def __call__(self, plan: Plan, place: Place, **_: object) -> Found:
        if len(self.ran) == self.stop_at:
            raise self.error()
        self.ran.append(place)
        return pretended(plan, place)


def pretended(plan: Plan, place: Place) -> Found:
    """Plain mean falls under `sign_flip` and lets a backdoor in; `krum` does neither; `median` fails under noise."""
    reason = reason_not_to_run(plan, place)
    if reason:
        return Found(status="not run", reason=reason)
    if (place.attack, place.rule) == ("gaussian_noise", "median"):
        return Found(status="failed", reason="all <updates> were lost")
    lost = {"sign_flip": 0.85, "label_flip": 0.02}.get(place.attack, 0.0) if place.rule == MEAN else 0.01
    success = None
    if plan.attack(place.attack).backdoor:
        success = 0.9 if place.rule == MEAN else 0.03
    return Found(status="ran", accuracy=0.95 - (0.0 if place.attack == NONE else lost), success=success)


@pytest.fixture
def plan() -> Plan:
    """Six rows and four columns, at 20 % and 40 %."""
    return make_plan(
        Wanted(
            rules=["krum", "median", "bulyan"],
            attacks=["sign_flip", "gaussian_noise", "label_flip", "backdoor", "free_rider"],
            partitions=["iid"],
            rounds=2,
        )
    )
