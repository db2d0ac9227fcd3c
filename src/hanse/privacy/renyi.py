"""Renyi divergences of parts: the accountant for what has no privacy loss distribution here.

Every function is an upper bound at each order. Bounds that hold at whole orders are carried to those between by
convexity of (a - 1) D_a in a.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from hanse.core.errors import MissingExtraError, UnknownEventError
from hanse.privacy.events import (
    Composed,
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    LocalEpsilon,
    PoissonSampled,
    Repeated,
    Skellam,
)
from hanse.privacy.flatten import Part
from hanse.privacy.neighbours import Neighbours

ORDERS: tuple[float, ...] = (
    *(1 + step / 10 for step in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(float(2**power) for power in range(6, 11)),
)
"""Orders alpha > 1 at which divergences are kept."""

_WHOLE_ORDERS = tuple(sorted({math.floor(order) for order in ORDERS if order >= 2} | {math.ceil(o) for o in ORDERS}))

Curve = Callable[[float], float]
"""Order to an upper bound on the divergence at that order."""


def renyi_divergences(parts: Mapping[Part, int], neighbours: Neighbours) -> np.ndarray:
    """The divergence of all parts together at `ORDERS`, `[len(ORDERS)]`: those of independent releases add up.

    References:
      Mironov 2017, arXiv:1702.07476, proposition 1.
    """
    total = np.zeros(len(ORDERS))
    for part, count in parts.items():
        total += count * np.asarray(_at_orders(part, neighbours))
    return total


def renyi_epsilon(divergences: np.ndarray, delta: float) -> float:
    """The epsilon that divergences at `ORDERS` imply at a delta in (0, 1).

    References:
      Canonne, Kamath, Steinke 2020, arXiv:2004.00010, proposition 12.
    """
    with np.errstate(all="ignore"):
        return float(_rdp().compute_epsilon(ORDERS, divergences, delta)[0])


def renyi_delta(divergences: np.ndarray, epsilon: float) -> float:
    """The delta that divergences at `ORDERS` imply at an epsilon >= 0.

        delta <= min over alpha of  exp((alpha - 1) (r_alpha - eps)) (1 - 1/alpha)^alpha / (alpha - 1)

    References:
      Canonne, Kamath, Steinke 2020, arXiv:2004.00010, proposition 12.
    """
    orders = np.asarray(ORDERS)
    with np.errstate(all="ignore"):
        logs = (orders - 1) * (divergences - epsilon) + orders * np.log1p(-1 / orders) - np.log(orders - 1)
    return float(min(1.0, math.exp(min(0.0, float(np.nanmin(logs))))))


@lru_cache(maxsize=4096)
def _at_orders(part: Event, neighbours: Neighbours) -> tuple[float, ...]:
    if isinstance(part, PoissonSampled) and isinstance(part.event, Gaussian):
        return _between(_poisson_gaussian(part.rate, part.event.noise_multiplier))
    if isinstance(part, PoissonSampled):
        curve, rate = _curve(part.event, 1.0), part.rate
        return _between({a: min(poisson_sampled(curve, rate, a), curve(a)) for a in _WHOLE_ORDERS})
    if isinstance(part, FixedSizeSampled):
        curve, rate = _curve(part.event, 2.0), part.sample / part.population
        return _between({a: min(fixed_size_sampled(curve, rate, a), curve(a)) for a in _WHOLE_ORDERS})
    if isinstance(part, Skellam):
        stretch = 2.0 if neighbours == "replace-one" else 1.0
        return _between({a: skellam_divergence(part, a, stretch=stretch) for a in _WHOLE_ORDERS})
    curve = _curve(part, 2.0 if neighbours == "replace-one" else 1.0)
    return tuple(curve(a) for a in ORDERS)


def _between(divergences: Mapping[int, float]) -> tuple[float, ...]:
    """From whole orders to `ORDERS`: (a - 1) D_a is convex in a, and 0 at a = 1.

    References:
      van Erven, Harremoës 2014, arXiv:1206.2459, corollary 2; Wang et al. 2019, arXiv:1808.00087, corollary 10.
    """
    found = []
    for order in ORDERS:
        low, high = math.floor(order), math.ceil(order)
        upper = (high - 1) * divergences[high]
        share = order - low
        value = (
            upper if share == 0 else share * upper + ((1 - share) * (low - 1) * divergences[low] if low > 1 else 0.0)
        )
        found.append(value / (order - 1))
    return tuple(found)


def _curve(event: Event, stretch: float) -> Curve:
    """The curve of an unsampled event whose sensitivity is `stretch` times what it says."""
    if isinstance(event, Gaussian):
        rho = 0.5 * (stretch / event.noise_multiplier) ** 2
        return lambda a: rho * a
    if isinstance(event, DiscreteGaussian):
        return lambda a: discrete_gaussian_divergence(event, a, stretch=stretch)
    if isinstance(event, Skellam):
        return lambda a: skellam_divergence(event, a, stretch=stretch)
    if isinstance(event, Laplace):
        epsilon = stretch / event.noise_multiplier
        return lambda a: laplace_divergence(epsilon, a)
    if isinstance(event, LocalEpsilon):
        return lambda a: pure_divergence(event.epsilon, a)
    if isinstance(event, Repeated):
        inner = _curve(event.event, stretch)
        return lambda a: event.count * inner(a)
    if isinstance(event, Composed):
        curves = [_curve(part, stretch) for part in event.events]
        return lambda a: sum(curve(a) for curve in curves)
    raise UnknownEventError(f"{type(event).__name__} has no Renyi divergence here")


def laplace_divergence(epsilon: float, order: float) -> float:
    """Of Laplace noise of scale 1 / epsilon times the sensitivity, at an order > 1.

        1/(a-1) log( a/(2a-1) e^((a-1) eps) + (a-1)/(2a-1) e^(-a eps) )

    References:
      Mironov 2017, arXiv:1702.07476, proposition 6.
    """
    a = order
    first = (a - 1) * epsilon + math.log(a / (2 * a - 1))
    second = -a * epsilon + math.log((a - 1) / (2 * a - 1))
    return float(np.logaddexp(first, second)) / (a - 1)


def pure_divergence(epsilon: float, order: float) -> float:
    """The most that an epsilon-private release can have at an order > 1: that of randomised response.

        1/(a-1) log( p^a (1-p)^(1-a) + (1-p)^a p^(1-a) )        p = e^eps / (1 + e^eps)

    References:
      Mironov 2017, arXiv:1702.07476, proposition 5; Kairouz, Oh, Viswanath 2015, arXiv:1311.0776
      (randomised response dominates).
    """
    log_p, log_rest = -float(np.logaddexp(0, -epsilon)), -float(np.logaddexp(0, epsilon))
    first = order * log_p + (1 - order) * log_rest
    second = order * log_rest + (1 - order) * log_p
    return min(epsilon, max(0.0, float(np.logaddexp(first, second)) / (order - 1)))


def discrete_gaussian_divergence(event: DiscreteGaussian, order: float, *, stretch: float = 1.0) -> float:
    """Of a sum of n shares of discrete Gaussian noise, at an order >= 1.

        tau = 10 sum over k < n of exp(-2 pi^2 sigma^2 k / (k + 1))        d = D2 / (sqrt(n) sigma)
        min( a/2 d^2 + tau dim,   a/2 (d^2 + 2 D1 tau / (sqrt(n) sigma) + tau^2 dim),   a/2 (d + tau sqrt(dim))^2 )

    With one share tau is 0 and this is a/2 d^2. The proposition asks for sigma >= 1/2 where there are more.

    Args:
      event: What was released.
      order: The order a.
      stretch: Factor on the sensitivities D1 and D2.

    References:
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387, proposition 14.
    """
    n, sigma = event.num_shares, event.stddev
    if n > 1 and sigma < 0.5:
        return math.inf
    spread = math.sqrt(n) * sigma
    d1, d2 = stretch * event.l1_sensitivity / spread, stretch * event.l2_sensitivity / spread
    tau = share_distance(n, sigma)
    half = order / 2
    return min(
        half * d2**2 + tau * event.dimension,
        half * (d2**2 + 2 * d1 * tau + tau**2 * event.dimension),
        half * (d2 + tau * math.sqrt(event.dimension)) ** 2,
    )


@lru_cache(maxsize=64)
def share_distance(shares: int, sigma: float) -> float:
    """tau: how far a sum of shares is, in logarithms of probabilities, from one discrete Gaussian of its variance.

    Args:
      shares: n, >= 1.
      sigma: Of one share, >= 1/2.

    References:
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387, corollary 12.
    """
    k = np.arange(1, shares)
    return 10 * float(np.exp(-2 * (math.pi * sigma) ** 2 * k / (k + 1)).sum())


def skellam_divergence(event: Skellam, order: float, *, stretch: float = 1.0) -> float:
    """Of Skellam noise of variance mu, at a whole order >= 2.

        a D2^2 / (2 mu) + min( ((2a - 1) D2^2 + 6 D1) / (4 mu^2),   3 D1 / (2 mu) )

    Args:
      event: What was released.
      order: The order a.
      stretch: Factor on the sensitivities D1 and D2.

    References:
      Agarwal, Kairouz, Liu 2021, arXiv:2110.04995, theorem 3.5.
    """
    a, mu = math.ceil(order), event.variance  # between whole orders: that of the next, as divergences grow
    d1, d2 = stretch * event.l1_sensitivity, stretch * event.l2_sensitivity
    return a * d2**2 / (2 * mu) + min(((2 * a - 1) * d2**2 + 6 * d1) / (4 * mu**2), 3 * d1 / (2 * mu))


def poisson_sampled(curve: Curve, rate: float, order: int) -> float:
    """Of any release on a Poisson sample, at a whole order >= 2.

        1/(a-1) log( (1-q)^(a-1) (a q - q + 1) + C(a,2) q^2 (1-q)^(a-2) e^(r(2))
                     + 3 sum over 3 <= l <= a of C(a,l) (1-q)^(a-l) q^l e^((l-1) r(l)) )

    The factor 3 is the general theorem's; it is not needed for some mechanisms, and never left out here.

    References:
      Zhu, Wang 2019, "Poisson subsampled Renyi differential privacy", theorem 5.
    """
    log_q, log_rest = math.log(rate), math.log1p(-rate)
    terms = [(order - 1) * log_rest + math.log(order * rate - rate + 1)]
    for part in range(2, order + 1):
        term = _log_choose(order, part) + (order - part) * log_rest + part * log_q + (part - 1) * curve(part)
        terms.append(term + (math.log(3) if part > 2 else 0.0))
    return _log_sum(terms) / (order - 1)


def fixed_size_sampled(curve: Curve, rate: float, order: int) -> float:
    """Of any release on a sample of fixed size, under replacement, at a whole order >= 2.

        1/(a-1) log( 1 + q^2 C(a,2) min(4 (e^(r(2)) - 1), 2 e^(r(2)))
                     + sum over 3 <= j <= a of 2 q^j C(a,j) e^((j-1) r(j)) )

    Args:
      curve: Of the release under replacement of one unit.
      rate: Sample over population, in (0, 1).
      order: The order a.

    References:
      Wang, Balle, Kasiviswanathan 2019, arXiv:1808.00087, theorem 9 (with an infinite r(infinity)).
    """
    log_q, second = math.log(rate), curve(2)
    least = min(math.log(4) + _log_expm1(second), math.log(2) + second)
    more = (part * log_q + _log_choose(order, part) + (part - 1) * curve(part) for part in range(3, order + 1))
    terms = [0.0, 2 * log_q + _log_choose(order, 2) + least, *(math.log(2) + term for term in more)]
    return _log_sum(terms) / (order - 1)


def _poisson_gaussian(rate: float, noise_multiplier: float) -> dict[int, float]:
    """By dp-accounting, at whole orders alone: its series between them need not converge.

    References:
      Mironov, Talwar, Zhang 2019, arXiv:1908.10530, section 3.3.
    """
    accountant = _rdp().RdpAccountant(_WHOLE_ORDERS)
    import dp_accounting

    accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier)))
    return {order: float(value) for order, value in zip(_WHOLE_ORDERS, accountant.rdp, strict=True)}


def _rdp() -> Any:
    try:
        from dp_accounting import rdp
    except ModuleNotFoundError as error:
        raise MissingExtraError("privacy accounting", extra="privacy") from error
    return rdp


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_expm1(x: float) -> float:
    if x == 0:
        return -math.inf
    return x + math.log(-math.expm1(-x))


def _log_sum(terms: list[float]) -> float:
    highest = max(terms)
    if math.isinf(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(term - highest) for term in terms))
