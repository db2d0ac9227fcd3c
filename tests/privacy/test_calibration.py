"""Calibration: never over budget, hardly under it, and refused where no noise would do."""

from __future__ import annotations

import pytest

from hanse.core.errors import PrivacyBudgetError, PrivacyError, SettingError
from hanse.privacy.accountant import epsilon
from hanse.privacy.budget import Budget
from hanse.privacy.calibration import noise_for_budget, rounds_for_budget
from hanse.privacy.events import (
    AdaptiveClipBits,
    Composed,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    LocalEpsilon,
    PoissonSampled,
    Repeated,
)


def poisson(rate: float, rounds: int, noise: float) -> Event:
    return Repeated(event=PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=noise)), count=rounds)


@pytest.mark.parametrize(
    ("rate", "rounds", "budget"),
    [(0.01, 1000, (1.8285, 1e-5)), (0.1, 100, (0.5, 1e-6)), (0.02, 50, (20.0, 1e-5)), (1.0, 100, (9.9973, 1e-5))],
)
def test_noise_keeps_the_budget_and_little_less_would_not(
    rate: float, rounds: int, budget: tuple[float, float]
) -> None:
    allowed = Budget(epsilon=budget[0], delta=budget[1])
    found = noise_for_budget(lambda noise: poisson(rate, rounds, noise), allowed)
    assert found.spent.epsilon == epsilon(poisson(rate, rounds, found.noise_multiplier), budget[1]) <= budget[0]
    assert epsilon(poisson(rate, rounds, 0.998 * found.noise_multiplier), budget[1]) > budget[0]


def test_golden_noise() -> None:
    found = noise_for_budget(lambda noise: poisson(0.01, 1000, noise), Budget(epsilon=1.8283, delta=1e-5))
    assert found.noise_multiplier == pytest.approx(1.0, rel=2e-4)


def test_a_plan_may_be_many_events() -> None:
    def plan(noise: float) -> list[Event]:
        round_one = FixedSizeSampled(
            sample=10,
            population=100,
            event=Composed(events=(Gaussian(noise_multiplier=noise), AdaptiveClipBits(noise_stddev=5))),
        )
        return [Repeated(event=round_one, count=20), Gaussian(noise_multiplier=40)]

    found = noise_for_budget(plan, Budget(epsilon=3, delta=1e-5))
    assert 3 * (1 - 2e-3) <= found.spent.epsilon <= 3
    assert found.spent.neighbours == "replace-one"


def test_pure_noise_needs_no_delta() -> None:
    found = noise_for_budget(
        lambda noise: Repeated(event=Laplace(noise_multiplier=noise), count=10), Budget(epsilon=2.0)
    )
    assert found.noise_multiplier == pytest.approx(5.0, rel=2e-4)
    assert found.spent.epsilon <= 2.0


def test_a_budget_that_hardly_any_noise_keeps() -> None:
    found = noise_for_budget(lambda noise: Gaussian(noise_multiplier=noise), Budget(epsilon=1e9, delta=0.1))
    assert found.noise_multiplier < 2e-3


def test_no_noise_can_pay_for_something_else() -> None:
    with pytest.raises(PrivacyBudgetError, match="no noise keeps the budget"):
        noise_for_budget(
            lambda noise: [Gaussian(noise_multiplier=noise), Gaussian(noise_multiplier=0.5)],
            Budget(epsilon=1, delta=1e-5),
        )


def test_a_budget_without_delta_is_refused() -> None:
    with pytest.raises(PrivacyError, match="without delta"):
        noise_for_budget(lambda noise: Gaussian(noise_multiplier=noise), Budget(epsilon=1))
    with pytest.raises(PrivacyError, match="without delta"):
        rounds_for_budget(Gaussian(noise_multiplier=1), Budget(epsilon=1))


@pytest.mark.parametrize(("rate", "allowed"), [(0.01, 1.8285), (0.1, 4.0)])
def test_rounds_are_the_last_within_budget(rate: float, allowed: float) -> None:
    event = PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=1))
    rounds = rounds_for_budget(event, Budget(epsilon=allowed, delta=1e-5))
    assert epsilon(Repeated(event=event, count=rounds), 1e-5) <= allowed
    assert epsilon(Repeated(event=event, count=rounds + 1), 1e-5) > allowed


def test_rounds_at_the_ends() -> None:
    assert rounds_for_budget(Gaussian(noise_multiplier=1), Budget(epsilon=0.1, delta=1e-5)) == 0
    assert rounds_for_budget(Gaussian(noise_multiplier=1e6), Budget(epsilon=1, delta=1e-5), limit=50) == 50
    assert rounds_for_budget(LocalEpsilon(epsilon=0.25), Budget(epsilon=1)) == 4
    assert rounds_for_budget(Gaussian(noise_multiplier=0), Budget(epsilon=1, delta=1e-5)) == 0
    with pytest.raises(PrivacyError, match="limit"):
        rounds_for_budget(Gaussian(noise_multiplier=1), Budget(epsilon=1, delta=1e-5), limit=0)


@pytest.mark.parametrize(
    "arguments",
    [{"epsilon": 0}, {"epsilon": -1}, {"epsilon": float("inf")}, {"epsilon": float("nan")}, {"epsilon": True}]
    + [{"epsilon": 1, "delta": value} for value in (0, 1, -1e-9, float("nan"), "1e-5", True)],
)
def test_impossible_budgets_are_refused(arguments: dict[str, float]) -> None:
    wrong = "delta" if "delta" in arguments else "epsilon"
    with pytest.raises(SettingError, match=f"^{wrong}: must be above 0"):
        Budget(**arguments)


def test_a_budget_reads_well() -> None:
    assert str(Budget(epsilon=4, delta=1e-6)) == "ε = 4, δ = 1e-06"
    assert str(Budget(epsilon=0.5)) == "ε = 0.5 (pure)"
