"""Cohorts that nobody but the coordinator knows, so that sampling makes a round cost less in a federation too.

Cohorts of a job follow from its seed, which every site has. Where a private run relies on nobody knowing who takes
part, they are drawn from a key that the coordinator keeps to itself, and whatever it tells of a round is the same
whoever takes part.

That is so for Poisson sampling alone. With cohorts of a fixed size a site that sees which of its own clients are asked
learns how many of the others are, and the rate that was accounted for is no longer theirs.
"""

from __future__ import annotations

import math

from hanse.pipeline.gaussian import CentralGaussian
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.selection import Poisson
from hanse.rounds.settings import RoundSettings

_DEVIATIONS = 8.0  # a binomial number is larger by more with probability below 1e-12 (Bernstein)


def cohorts_are_secret(privacy: PrivacySettings | None, settings: RoundSettings) -> bool:
    """Whether a run in a federation relies on nobody knowing who takes part in a round."""
    if privacy is None or not isinstance(privacy.mechanism, CentralGaussian):
        return False
    return isinstance(settings.cohort, Poisson) and settings.cohort.rate < 1


def largest_cohort(rate: float, population: int) -> int:
    """A number that a Poisson cohort exceeds with probability below 1e-12; it depends on nothing else.

    >>> largest_cohort(0.1, 1000), largest_cohort(0.5, 4)
    (198, 4)
    """
    spread = _DEVIATIONS * math.sqrt(population * rate * (1 - rate))
    return max(1, min(population, math.ceil(population * rate + spread + _DEVIATIONS**2 / 3)))
