"""Exact discrete Laplace and Gaussian noise: whole-number arithmetic from uniform bits to the result.

No floating-point number takes part, so probabilities are those of the equations and not of a rounding. The samplers
work on whole arrays: each step is a uniform draw and a comparison, and what was rejected is drawn again. Only where
bits do not decide (`hanse.privacy.half_gaussian`) are probabilities computed, to as many digits as it takes.

References:
  Canonne, Kamath, Steinke 2020, "The discrete Gaussian for differential privacy", arXiv:2004.00010, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from hanse.core.errors import PrivacyError
from hanse.privacy.half_gaussian import half_gaussian
from hanse.privacy.random_source import RandomSource

_FITS = 1 << 62
_FEW = 13  # bits that are compared at a time
_FINE = 6  # magnitudes come in steps of at most sigma / 2^6, so that few are drawn again
_PIECE = 1 << 20  # numbers made at a time: bounded memory


def bernoulli_exp(numerators: np.ndarray, denominator: int, source: RandomSource) -> np.ndarray:
    """True with probability exp(-numerator / denominator), exactly and independently, `bool[n]`.

    Args:
      numerators: Each >= 0, `int64[n]`.
      denominator: In [1, 2^62].
      source: Where the bits come from.

    References:
      Canonne, Kamath, Steinke 2020, algorithm 1.
    """
    accepted = _bernoulli_exp_fraction(numerators % denominator, denominator, source)
    wholes = numerators // denominator  # exp(-(m + f)) = exp(-1)^m exp(-f)
    alive = np.flatnonzero(accepted & (wholes > 0))
    while len(alive):
        passed = _bernoulli_exp_one(len(alive), source)
        accepted[alive[~passed]] = False
        alive = alive[passed]
        wholes[alive] -= 1
        alive = alive[wholes[alive] > 0]
    return accepted


def discrete_laplace(scale: Fraction, size: int, source: RandomSource) -> np.ndarray:
    """Whole numbers x with probability proportional to exp(-|x| / scale), `int64[size]`.

    Args:
      scale: > 0; numerator at most 2^50.
      size: How many, >= 0.
      source: Where the bits come from.

    References:
      Canonne, Kamath, Steinke 2020, algorithm 2.
    """
    scale = _positive(scale, "scale")
    if scale.numerator > 1 << 50:
        raise PrivacyError(f"a discrete Laplace scale has numerator {scale.numerator}; at most 2^50 is supported")
    return _pieces(size, lambda wanted: _laplace_candidates(scale, wanted, source), spare=2)


def discrete_gaussian(variance: Fraction, size: int, source: RandomSource) -> np.ndarray:
    """Whole numbers x with probability proportional to exp(-x^2 / (2 variance)), `int64[size]`.

    With m a power of two of at most sigma / 64, a magnitude is y = m h + r: h is drawn from half a discrete Gaussian of
    parameter sigma / m, by a table, r uniform below m, and y is kept with probability
    exp(-(2 m h r + r^2) / (2 variance)), which is near 1. A sign makes it whole; of the two zeros one is thrown away.

    Args:
      variance: The parameter sigma^2, > 0 (the noise's variance is this or a little less); see `rational_variance`.
      size: How many, >= 0.
      source: Where the bits come from.

    Raises:
      PrivacyError: sigma^2 as a fraction has too many digits for exact arithmetic in 64 bits.

    References:
      Karney 2016, "Sampling exactly from the normal distribution" (the whole part by its own law, then the rest).
      Canonne, Kamath, Steinke 2020, algorithm 1 (what is kept).
    """
    variance = _positive(variance, "variance")
    p, q = variance.numerator, variance.denominator
    step = 1 << max(0, (math.isqrt(p // q) >> _FINE).bit_length() - 1)
    if step > 1 and 2 * p > _FITS:
        raise PrivacyError(
            f"a discrete Gaussian's variance {p}/{q} has too many digits for exact arithmetic",
            hint="round it up with rational_variance, or use a coarser grid",
        )
    exponent = Fraction(step * step * q, 2 * p)

    def candidates(wanted: int) -> np.ndarray:
        found = half_gaussian(exponent, wanted, source)
        if step > 1:
            rest = source.below(step, wanted)
            found *= step
            found += rest
            # (y^2 - (y - r)^2) / (2 p / q) = (2 y - r) r q / (2 p)
            found = found[bernoulli_exp((2 * found - rest) * (rest * q), 2 * p, source)]
        negative = source.below(2, len(found)).astype(bool)
        signed: np.ndarray = np.where(negative, -found, found)
        kept: np.ndarray = signed[~(negative & (found == 0))]  # 0 must not come twice
        return kept

    return _pieces(size, candidates, spare=64)


def rational_variance(stddev: float) -> Fraction:
    """The variance of a standard deviation as a short fraction, rounded up: noise is never smaller than asked for.

    Args:
      stddev: sigma, in units of the integer grid, > 0 and at most 2^24.

    >>> rational_variance(10.0)
    Fraction(100, 1)
    """
    if not isinstance(stddev, int | float) or not 0 < stddev <= 1 << 24:
        raise PrivacyError(f"a standard deviation of discrete noise is {stddev!r}; wanted > 0 and at most 2^24")
    exact = Fraction(stddev) ** 2
    places = max(0, min(16, 48 - math.ceil(exact).bit_length()))
    return Fraction(math.ceil(exact * (1 << places)), 1 << places)


def _pieces(size: int, candidates: Callable[[int], np.ndarray], *, spare: int) -> np.ndarray:
    """So many results of `candidates`, of which about one in `spare` is rejected."""
    found = np.empty(size, dtype=np.int64)
    done = 0
    while done < size:
        piece = candidates(min(_PIECE, size - done + (size - done) // spare + 16))[: size - done]
        found[done : done + len(piece)] = piece
        done += len(piece)
    return found


def _laplace_candidates(scale: Fraction, wanted: int, source: RandomSource) -> np.ndarray:
    """At most `wanted` discrete Laplace numbers: those that were not rejected."""
    t, s = scale.numerator, scale.denominator
    low = source.below(t, wanted)
    low = low[_bernoulli_exp_fraction(low, t, source)]
    # t * high stays below 2^63 unless one number takes 2^12 successes in a row, of probability e^-4096
    magnitude = (low + t * _geometric(len(low), source)) // s
    negative = source.below(2, len(low)).astype(bool)
    keep = ~(negative & (magnitude == 0))  # 0 must not come twice
    signed: np.ndarray = np.where(negative, -magnitude, magnitude)[keep]
    return signed


def _bernoulli_exp_fraction(numerators: np.ndarray, denominator: int, source: RandomSource) -> np.ndarray:
    """Bernoulli(exp(-f)) for f = numerator / denominator in [0, 1].

    Draw Bernoulli(f / k) for k = 1, 2, … until one fails; it is the k-th with probability f^(k-1)/(k-1)! - f^k/k!, and
    the odd ones of these sum to exp(-f).
    """
    accepted = np.zeros(len(numerators), dtype=bool)
    alive = np.arange(len(numerators))
    k = 1
    while len(alive):
        again = _bernoulli(numerators[alive], denominator, source)
        if k > 1:
            places = np.flatnonzero(again)
            again[places] = source.below(k, len(places)) == 0
        if k % 2:
            accepted[alive[~again]] = True
        alive = alive[again]
        k += 1
    return accepted


def _bernoulli(numerators: np.ndarray, denominator: int, source: RandomSource) -> np.ndarray:
    """Bernoulli(f) for f = numerator / denominator in [0, 1].

    A uniform number is compared with f a few bits at a time: next to always the first ones tell.
    """
    if denominator > _FITS >> _FEW or denominator < 1 << _FEW:
        return source.below(denominator, len(numerators)) < numerators
    whole, rest = np.divmod(numerators << _FEW, denominator)
    drawn = source.below(1 << _FEW, len(numerators))
    less: np.ndarray = drawn < whole
    open_places = np.flatnonzero(drawn == whole)
    if len(open_places):
        less[open_places] = _bernoulli(rest[open_places], denominator, source)
    return less


def _bernoulli_exp_one(size: int, source: RandomSource) -> np.ndarray:
    return _bernoulli_exp_fraction(np.ones(size, dtype=np.int64), 1, source)


def _geometric(size: int, source: RandomSource) -> np.ndarray:
    """How many Bernoulli(exp(-1)) succeed in a row."""
    counts = np.zeros(size, dtype=np.int64)
    alive = np.arange(size)
    while len(alive):
        alive = alive[_bernoulli_exp_one(len(alive), source)]
        counts[alive] += 1
    return counts


def _positive(value: Fraction, name: str) -> Fraction:
    if not isinstance(value, Fraction | int) or isinstance(value, bool) or value <= 0:
        raise PrivacyError(
            f"the {name} of discrete noise is {value!r}; wanted a fraction > 0",
            hint="floats are not exact: use fractions.Fraction, or rational_variance",
        )
    return Fraction(value)
