"""Discrete Gaussian noise of large deviation, accounted for as Gaussian noise: what the difference costs, bounded.

Renyi divergences of discrete Gaussian noise are at most those of Gaussian noise, but epsilons found by way of
divergences are 6-9 % too large. Gaussian noise has exact ones. So the two kinds of noise are compared directly, and
their difference is charged on top.

**The bound.** Let p be the probabilities of a discrete Gaussian of parameter s and r those of a Gaussian of variance
v = s^2 - 1/12 that was rounded to whole numbers, which is post-processing of Gaussian noise. With A(k) the integral of
exp(-(2 k u + u^2) / (2 v)) over |u| <= 1/2 and e the relative excess of the sum of exp(-k^2 / (2 s^2)) over the
integral,

    log r(k)/p(k)  =  log(s / sqrt(v)) + log(1 + e) - k^2 / (24 s^2 v) + log A(k)        0 <= e <= 3 exp(-2 pi^2 s^2)

From above, sinh(a)/a <= exp(a^2/6), and as cosh grows with |u| while exp(-u^2/(2v)) falls, the integral of their
product is at most the product of their integrals. From below, cosh(y) >= 1 + y^2/2, exp(-y) >= 1 - y and, for small y,
log(1 + y) >= y - y^2. The terms in 1/v cancel (that is what 1/12 is for), and with c = k^2 / v what is left is at most

    |log r(k)/p(k)|  <=  (1/576 + c/320 + (1 + c)^2/576) / v^2  +  e

A sum of n shares of parameter s_1 has probabilities within exp(+-tau) of those for s = sqrt(n) s_1.

**What it costs.** All noise of a ledger, in D coordinates altogether, stays within t s (discrete) and so does the
rounded noise, but with probability d' each, by sub-Gaussian tails. There the likelihoods of everything that is
released differ by at most a factor exp(h), h the sum of the bounds. So if Gaussian noise is (eps, delta)-private, then
discrete noise is (eps + 2 h, exp(h) delta + d' (1 + exp(eps + h)))-private; samples, compositions and choices between
rounds are the same functions of either noise.

References:
  Canonne, Kamath, Steinke 2020, arXiv:2004.00010, corollary 17 (tails) and fact 18 (the sum against the integral).
  Kairouz, Liu, Steinke 2021, arXiv:2102.06387, corollary 12 (sums of shares).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hanse.privacy.events import (
    Composed,
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    PoissonSampled,
    Repeated,
)
from hanse.privacy.flatten import Flat, flatten
from hanse.privacy.renyi import share_distance

_LEAST_STDDEV = 4.0  # of a sum; below, the difference is too large to be of use
_LEAST_SHARE = 1.0
_MOST_EXTRA = 0.05  # h; beyond, the other way is tried alone
_SPARE = 1e-6  # the part of delta that goes to noise beyond the tails


@dataclass(frozen=True)
class NearGaussian:
    """Releases with Gaussian noise in place of discrete Gaussian noise.

    Args:
      flat: What to account for: where that is (eps, delta)-private with eps at most what was said to be the highest,
        the discrete releases are (eps + extra, factor * delta + spare)-private.
      extra: 2 h.
      factor: exp(h).
      spare: What noise beyond the tails costs.
    """

    flat: Flat
    extra: float
    factor: float
    spare: float


def near_gaussian(flat: Flat, delta: float, *, highest: float) -> NearGaussian | None:
    """Releases with discrete Gaussian noise, as such with Gaussian noise.

    Args:
      flat: The releases.
      delta: Of about what is asked for, in (0, 1).
      highest: The largest epsilon that is of interest.

    Returns:
      None where there is no discrete Gaussian noise, or it is too small.
    """
    found = [(part, count * times) for whole, count in flat.parts.items() for part, times in _discrete(whole)]
    if not found or highest > 50:
        return None
    for part, _ in found:
        if _summed(part) < _LEAST_STDDEV or (part.num_shares > 1 and part.stddev < _LEAST_SHARE):
            return None
    coordinates = sum(count * part.dimension for part, count in found)
    beyond = _SPARE * delta / (1 + math.exp(highest + _MOST_EXTRA))
    extra = sum(count * part.dimension * distance(part, coordinates, beyond) for part, count in found)
    if extra > _MOST_EXTRA:
        return None
    parts = Counter[Event]({_as_gaussian(whole): count for whole, count in flat.parts.items()})
    (gaussian,) = flatten(parts, flat.neighbours)  # disjoint parts have been told apart before
    return NearGaussian(
        flat=gaussian,
        extra=2 * extra,
        factor=math.exp(extra),
        spare=_SPARE * delta,
    )


def distance(part: DiscreteGaussian, coordinates: int, beyond: float) -> float:
    """By how much logarithms of one coordinate's likelihoods differ at most, but with probability `beyond` anywhere.

    Args:
      part: The noise.
      coordinates: In all releases together, >= 1.
      beyond: In (0, 1).
    """
    sigma = _summed(part)
    variance = sigma**2 - 1 / 12
    tail = math.sqrt(2 * math.log(2 * coordinates / beyond)) + 1 / (2 * math.sqrt(variance))
    c = (tail * sigma) ** 2 / variance
    excess = 3 * math.exp(-2 * (math.pi * sigma) ** 2)
    shares = share_distance(part.num_shares, part.stddev)
    return (1 / 576 + c / 320 + (1 + c) ** 2 / 576) / variance**2 + excess + shares


def _summed(part: DiscreteGaussian) -> float:
    return math.sqrt(part.num_shares) * part.stddev


def _discrete(event: Event) -> Iterator[tuple[DiscreteGaussian, int]]:
    """The discrete Gaussian releases in an event, and how often each happens."""
    if isinstance(event, DiscreteGaussian):
        yield event, 1
    elif isinstance(event, PoissonSampled | FixedSizeSampled):
        yield from _discrete(event.event)
    elif isinstance(event, Repeated):
        yield from ((part, event.count * times) for part, times in _discrete(event.event))
    elif isinstance(event, Composed):
        for inner in event.events:
            yield from _discrete(inner)


def _as_gaussian(event: Event) -> Event:
    if isinstance(event, DiscreteGaussian):
        stddev = math.sqrt(_summed(event) ** 2 - 1 / 12)
        return Gaussian(noise_multiplier=stddev / event.l2_sensitivity)
    if isinstance(event, PoissonSampled | FixedSizeSampled | Repeated):
        return replace(event, event=_as_gaussian(event.event))
    if isinstance(event, Composed):
        return replace(event, events=tuple(_as_gaussian(inner) for inner in event.events))
    return event
