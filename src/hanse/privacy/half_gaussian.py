"""Exact draws from half a discrete Gaussian, by a table of its distribution and as many bits as each draw needs.

A uniform number in [0, 1) is drawn bit by bit, in words. After one word it lies in an interval of length 2^-32, and
next to always the whole interval belongs to one result. Where a boundary of the distribution lies inside, more bits are
drawn and boundaries are computed to more digits, until it does not. So no probability is rounded.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np

from hanse.privacy.random_source import RandomSource

WORD = 32
"""Bits that are drawn at a time."""

_GUIDE = 12  # bits by which a table is entered: so many that hardly any step is left
_GUARD = 40  # decimal digits beyond those that are looked at
_DOUBT = Decimal(10) ** -20  # a boundary so close to a whole number is computed anew, to more digits


def half_gaussian(exponent: Fraction, size: int, source: RandomSource) -> np.ndarray:
    """Whole numbers h >= 0 with probability proportional to exp(-exponent h^2), `int64[size]`.

    Args:
      exponent: a, in (0, 1]; a table has about 7 / sqrt(a) entries.
      size: How many, >= 0.
      source: Where the bits come from.

    References:
      Knuth, Yao 1976, "The complexity of nonuniform random number generation" (draws as long as they need to be).
    """
    table, guide, shift = _table(exponent, WORD)
    first = source.below(1 << WORD, size)
    found: np.ndarray = guide[first >> shift]
    behind = np.flatnonzero(table[found] < first)
    while len(behind):
        found[behind] += 1
        behind = behind[table[found[behind]] < first[behind]]
    for place in np.flatnonzero(table[found] == first):  # next to never
        found[place] = _resolved(exponent, int(first[place]), source)
    return found


def _resolved(exponent: Fraction, drawn: int, source: RandomSource) -> int:
    """The result for a word in which a boundary lies."""
    words = 1
    while True:
        drawn, words = (drawn << WORD) | int(source.below(1 << WORD, 1)[0]), words + 1
        boundaries = _boundaries(exponent, WORD * words)
        place = bisect_left(boundaries, drawn)
        if boundaries[place] != drawn:
            return place


@lru_cache(maxsize=16)
def _table(exponent: Fraction, bits: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The boundaries; for the first bits of a word where among them to look; and how many bits are left of it."""
    boundaries = np.array(_boundaries(exponent, bits), dtype=np.int64)
    shift = max(0, bits - _GUIDE)
    return boundaries, np.searchsorted(boundaries, np.arange(1 << (bits - shift)) << shift).astype(np.int64), shift


@lru_cache(maxsize=16)
def _boundaries(exponent: Fraction, bits: int) -> list[int]:
    """floor(2^bits F(h)) of the distribution function F, up to the first that is the largest number of so many bits.

    A word u below all but the first h of them is h; where u is among them, the boundary lies inside of its interval.
    """
    digits = math.ceil(bits * math.log10(2)) + _GUARD
    while True:
        found = _computed(exponent, bits, digits)
        if found is not None:
            return found
        digits *= 2


def _computed(exponent: Fraction, bits: int, digits: int) -> list[int] | None:
    """The boundaries; None where so few digits do not tell one of them."""
    with localcontext(prec=digits):
        a = Decimal(exponent.numerator) / Decimal(exponent.denominator)
        ratio, decay = (-a).exp(), (-2 * a).exp()
        weights, least = [Decimal(1)], Decimal(10) ** -digits
        while weights[-1] > least:  # weights fall faster than any power: what is left out is less than the last digits
            weights.append(weights[-1] * ratio)
            ratio *= decay
        scale, total, found = Decimal(1 << bits) / sum(weights), Decimal(0), []
        for weight in weights:
            total += weight
            boundary = total * scale
            whole = int(boundary)
            if not _DOUBT < boundary - whole < 1 - _DOUBT:
                if (1 << bits) - boundary > _DOUBT:
                    return None
                whole = (1 << bits) - 1  # so near to the end that only more digits would tell it from the end
            found.append(whole)
            if whole == (1 << bits) - 1:
                break
        return found
