"""Discrete Gaussian noise as Gaussian noise: the distance by summation, and no epsilon below what is surely spent."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest

from hanse.privacy.accountant import account, delta, epsilon
from hanse.privacy.events import (
    Composed,
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    PoissonSampled,
    Repeated,
    Skellam,
)
from hanse.privacy.flatten import flatten
from hanse.privacy.near_gaussian import distance, near_gaussian
from hanse.privacy.renyi import renyi_divergences, renyi_epsilon


def fine(stddev: float = 2000.0, **changes: object) -> DiscreteGaussian:
    parts = {"stddev": stddev, "l2_sensitivity": 1000.0, "l1_sensitivity": 1e5, "dimension": 10_000}
    return DiscreteGaussian(**(parts | changes))  # type: ignore[arg-type]


def _log_ratio(sigma: int, place: int) -> float:
    """log r(k)/p(k) to 40 digits: the rounded Gaussian by Simpson's rule, the discrete one by its sum."""
    getcontext().prec = 40
    s2 = Decimal(sigma) ** 2
    v = s2 - Decimal(1) / 12
    total = sum(((-(Decimal(k) ** 2) / (2 * s2)).exp() for k in range(-14 * sigma, 14 * sigma + 1)), Decimal(0))
    discrete = (-(Decimal(place) ** 2) / (2 * s2)).exp() / total
    steps, weights = 200, Decimal(0)
    for i in range(steps + 1):
        u = Decimal(place) - Decimal("0.5") + Decimal(i) / steps
        weights += (1 if i in (0, steps) else 4 if i % 2 else 2) * (-(u**2) / (2 * v)).exp()
    pi = Decimal("3.141592653589793238462643383279502884197")
    rounded = weights / (3 * steps) / (2 * pi * v).sqrt()
    return float((rounded / discrete).ln())


@pytest.mark.parametrize("sigma", [4, 10, 40])
def test_the_bound_holds_at_every_place_within_the_tail(sigma: int) -> None:
    part = DiscreteGaussian(stddev=sigma, l2_sensitivity=1, l1_sensitivity=1, dimension=1)
    for tail in (1.0, 2.0, 4.0, 8.0):
        beyond = 2 * math.exp(-((tail - 1 / (2 * math.sqrt(sigma**2 - 1 / 12))) ** 2) / 2)  # where the tail is `tail`
        bound = distance(part, 1, beyond)
        places = {0, round(tail * sigma / 2), math.floor(tail * sigma)}
        assert max(abs(_log_ratio(sigma, k)) for k in places) <= bound
        assert bound < 300 * (1 + tail**4) / sigma**4


def test_fine_noise_costs_what_gaussian_noise_does() -> None:
    for wrap in (
        lambda e: Repeated(event=e, count=20),
        lambda e: PoissonSampled(rate=0.1, event=e),
        lambda e: FixedSizeSampled(sample=1, population=10, event=e),
        lambda e: PoissonSampled(rate=0.1, event=Composed(events=(e, Gaussian(noise_multiplier=3)))),
    ):
        discrete, gaussian = account(wrap(fine()), delta=1e-6), account(wrap(Gaussian(noise_multiplier=2)), delta=1e-6)
        assert gaussian.epsilon < discrete.epsilon < gaussian.epsilon + 1e-4
        assert discrete.method in ("exact", "pld")
        assert "is Gaussian, but for" in discrete.reason
        assert discrete.delta == 1e-6


def test_it_is_never_above_what_divergences_say() -> None:
    for stddev in (0.5, 2.0, 4.0, 6.0, 10.0, 100.0):
        event = DiscreteGaussian(stddev=stddev, l2_sensitivity=stddev / 2, l1_sensitivity=stddev, dimension=50)
        by_divergences = renyi_epsilon(renyi_divergences(flatten(event)[0].parts, "add-or-remove-one"), 1e-6)
        assert epsilon(Gaussian(noise_multiplier=2), 1e-6) < epsilon(event, 1e-6) <= by_divergences


def test_one_dimension_by_summation() -> None:
    """The hockey-stick divergence of two shifted discrete Gaussians, summed up: the claim is above it."""
    for sigma, shift in ((8, 4), (20, 20), (50, 10)):
        event = DiscreteGaussian(stddev=sigma, l2_sensitivity=shift, l1_sensitivity=shift, dimension=1)
        k = np.arange(-40 * sigma, 40 * sigma + 1)
        p = np.exp(-(k**2) / (2 * sigma**2))
        p /= p.sum()
        q = np.exp(-((k - shift) ** 2) / (2 * sigma**2))
        q /= q.sum()
        at = epsilon(event, 1e-6)
        assert np.maximum(q - math.exp(at) * p, 0).sum() <= 1e-6
        assert np.maximum(q - math.exp(0.9 * at) * p, 0).sum() > 1e-6  # and not far above
        assert delta(event, at).delta == pytest.approx(1e-6, rel=0.01)


def test_shares_count_as_their_sum() -> None:
    one, many = fine(), fine(stddev=200.0, num_shares=100)
    assert epsilon(many, 1e-6) == pytest.approx(epsilon(one, 1e-6))


@pytest.mark.parametrize(
    "event",
    [
        Gaussian(noise_multiplier=2),
        Skellam(variance=1e6, l2_sensitivity=500, l1_sensitivity=5e4),
        fine(stddev=3.0, l2_sensitivity=1.0),  # coarse
        fine(stddev=0.7, num_shares=1000),  # the sum of shares so coarse is no discrete Gaussian
        fine(stddev=5.0, l2_sensitivity=5.0, dimension=10_000_000),  # so many coordinates that it shows
    ],
)
def test_what_is_not_near_is_left_alone(event: Event) -> None:
    assert near_gaussian(flatten(event)[0], 1e-6, highest=5.0) is None
