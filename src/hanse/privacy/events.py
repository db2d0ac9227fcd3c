"""Mechanism events: what was released, in the terms in which it is accounted for.

A stage describes each release by one of these values; an accountant interprets them; a ledger keeps them. They hold
numbers and no behaviour, so that a ledger written today can be read by a better accountant tomorrow.

Sensitivities are those of *one* unit (a client, or an example) being added to or removed from the data, or its
contribution being replaced by zero. Replacing one unit by another moves a result by up to twice as much; accountants
do that doubling (see `hanse.privacy.neighbours`), events never do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from hanse.core.errors import PrivacyError

Correlation = Literal["tree", "banded"]


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Independent Gaussian noise on a vector of bounded L2 norm.

        released = f(data) + N(0, (noise_multiplier * C)^2 I)        |f(x) - f(x')|_2 <= C

    Args:
      noise_multiplier: Noise standard deviation divided by the L2 sensitivity, dimensionless, >= 0; 0 releases
        the value as it is, which costs an infinite epsilon.

    References:
      Dwork, Roth 2014, "The algorithmic foundations of differential privacy", appendix A.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _number(self, "noise_multiplier", at_least=0)


@dataclass(frozen=True, kw_only=True)
class AdaptiveClipBits:
    """The noised count of clients whose update was below the clip norm, which adapts that norm.

    Each client sends a bit, taken as -1/2 or +1/2, so one client moves the sum by 1/2 at most, and the count is a
    Gaussian release of noise multiplier 2 * noise_stddev.

    Args:
      noise_stddev: Standard deviation sigma_b of the noise on the *sum* of bits, in clients, >= 0.

    References:
      Andrew, Thakkar, McMahan, Ramaswamy 2021, arXiv:1905.03871, algorithm 1 and theorem 1.
    """

    noise_stddev: float

    def __post_init__(self) -> None:
        _number(self, "noise_stddev", at_least=0)

    @property
    def noise_multiplier(self) -> float:
        """Noise standard deviation divided by the sensitivity 1/2."""
        return 2 * self.noise_stddev


@dataclass(frozen=True, kw_only=True)
class Laplace:
    """Independent Laplace noise on a vector of bounded L1 norm: pure epsilon = 1 / noise_multiplier.

    Args:
      noise_multiplier: The Laplace distribution's scale b divided by the L1 sensitivity, dimensionless, >= 0.

    References:
      Dwork, McSherry, Nissim, Smith 2006, "Calibrating noise to sensitivity in private data analysis".
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _number(self, "noise_multiplier", at_least=0)


@dataclass(frozen=True, kw_only=True)
class DiscreteGaussian:
    """A sum of integer vectors with discrete Gaussian noise in `num_shares` independent shares.

    With one share it is the central mechanism, 1/2 (l2 / stddev)^2 zCDP. A sum of shares is no discrete Gaussian;
    what the difference costs is the term tau of the paper (`hanse.privacy.renyi`), which needs `dimension` and L1.

    Args:
      stddev: The parameter sigma of *one* share, in units of the integer grid, >= 0.
      l2_sensitivity: In units of the grid, after rounding, > 0.
      l1_sensitivity: Likewise, > 0.
      dimension: Coordinates, >= 1.
      num_shares: Shares that are surely in the sum, >= 1: clients that may drop out, or collude, do not count.

    References:
      Canonne, Kamath, Steinke 2020, arXiv:2004.00010, section 2 (one share).
      Kairouz, Liu, Steinke 2021, arXiv:2102.06387, proposition 14 (a sum of shares).
    """

    stddev: float
    l2_sensitivity: float
    l1_sensitivity: float
    dimension: int
    num_shares: int = 1

    def __post_init__(self) -> None:
        _number(self, "stddev", at_least=0)
        _number(self, "l2_sensitivity", above=0)
        _number(self, "l1_sensitivity", above=0)
        _whole(self, "dimension", at_least=1)
        _whole(self, "num_shares", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Skellam:
    """A sum of integer vectors with Skellam noise, which stays Skellam when shares are added.

    Args:
      variance: Variance of the noise on one coordinate of the *sum*, in squared units of the integer grid, >= 0.
      l2_sensitivity: In units of the grid, after rounding, > 0.
      l1_sensitivity: Likewise, > 0.

    References:
      Agarwal, Kairouz, Liu 2021, arXiv:2110.04995, theorem 3.5 and corollary 4.1 (with scale 1).
    """

    variance: float
    l2_sensitivity: float
    l1_sensitivity: float

    def __post_init__(self) -> None:
        _number(self, "variance", at_least=0)
        _number(self, "l2_sensitivity", above=0)
        _number(self, "l1_sensitivity", above=0)


@dataclass(frozen=True, kw_only=True)
class LocalEpsilon:
    """A report that is `epsilon`-locally private: pure, whoever reads it.

    The sender is known to the reader, so no sampling of senders amplifies it.

    Args:
      epsilon: Of one report, >= 0.

    References:
      Kasiviswanathan, Lee, Nissim, Raskhodnikova, Smith 2011, arXiv:0803.0924, definition of the local model.
    """

    epsilon: float

    def __post_init__(self) -> None:
        _number(self, "epsilon", at_least=0)


@dataclass(frozen=True, kw_only=True)
class CorrelatedGaussian:
    """A whole run's noisy prefix sums by a factorisation A = B C: one Gaussian release of C x + z.

    The guarantee holds for adaptively chosen x, and for any post-processing by B. It needs no sampling, but it needs
    the participation limits to be *enforced*.

    Args:
      correlation: "tree" (DP-FTRL) or "banded" (banded matrix factorisation).
      noise_multiplier: Standard deviation of a coordinate of z divided by the clip norm, dimensionless, >= 0.
      sensitivity: Largest |C (x - x')|_2 for contributions of norm 1, dimensionless, > 0.
      rounds: Rounds that the factorisation covers, >= 1.
      participations: How often one unit may take part, >= 1.
      min_separation: Fewest rounds from one participation to the next, >= 1: 1 allows rounds in a row.

    References:
      Kairouz et al. 2021, arXiv:2103.00039; Denisov et al. 2022, arXiv:2202.08312, theorem 2.1;
      Choquette-Choo et al. 2023, arXiv:2306.08153, section 3.
    """

    correlation: Correlation
    noise_multiplier: float
    sensitivity: float
    rounds: int
    participations: int
    min_separation: int

    def __post_init__(self) -> None:
        if self.correlation not in ("tree", "banded"):
            raise _wrong(self, "correlation", 'wanted "tree" or "banded"')
        _number(self, "noise_multiplier", at_least=0)
        _number(self, "sensitivity", above=0)
        for name in ("rounds", "participations", "min_separation"):
            _whole(self, name, at_least=1)


@dataclass(frozen=True, kw_only=True)
class NonPrivate:
    """Something derived from data was released with no protection: epsilon is infinite from here on.

    Args:
      reason: What was released, for who reads the ledger; not empty.
    """

    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason:
            raise _wrong(self, "reason", "wanted a text")


@dataclass(frozen=True, kw_only=True)
class PoissonSampled:
    """A release on a sample that each unit joins independently with the same probability, kept secret.

    Accounted for under adding or removing one unit (or zeroing its contribution).

    Args:
      rate: Probability q, in (0, 1].
      event: What was released of the sample.

    References:
      Abadi et al. 2016, arXiv:1607.00133; Zhu, Dong, Wang 2022, arXiv:2106.08567, theorem 11.
    """

    rate: float
    event: Event

    def __post_init__(self) -> None:
        _number(self, "rate", above=0, at_most=1)
        _event(self, "event", self.event)


@dataclass(frozen=True, kw_only=True)
class FixedSizeSampled:
    """A release on a uniform sample of fixed size without replacement, kept secret.

    Accounted for under *replacing* one unit: the population's size is public, and sensitivities double. That makes
    it cost more than Poisson sampling at the same rate and noise.

    Args:
      sample: Units in the sample n, >= 1.
      population: Units to choose from N, >= n.
      event: What was released of the sample.

    References:
      Balle, Barthe, Gaboardi 2018, arXiv:1807.01647, theorem 9; Lebeda, Regehr, Kamath, Steinke 2024, arXiv:2405.20769.
    """

    sample: int
    population: int
    event: Event

    def __post_init__(self) -> None:
        _whole(self, "sample", at_least=1)
        _whole(self, "population", at_least=self.sample)
        _event(self, "event", self.event)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Several releases of the same data, or of the same sample if inside a sampled event.

    Args:
      events: One or more.
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.events, tuple) or not self.events:
            raise _wrong(self, "events", "wanted a tuple of one or more events")
        for event in self.events:
            _event(self, "events", event)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The same release, `count` times, each with noise of its own (and a sample of its own, if `event` is sampled).

    Args:
      event: What was released.
      count: How often, >= 1.
    """

    event: Event
    count: int

    def __post_init__(self) -> None:
        _whole(self, "count", at_least=1)
        _event(self, "event", self.event)


@dataclass(frozen=True, kw_only=True)
class Disjoint:
    """Releases of parts of the data that have no unit in common: it costs what the costliest part does.

    Args:
      partition: Names how units are shared out. Releases of one name have the same parts in the same order, and a unit
        is in the same one each time; not empty.
      parts: What was released of each part, one or more.

    References:
      McSherry 2009, "Privacy integrated queries", theorem 4 (parallel composition); here per part and over rounds,
      before the worst is taken.
    """

    partition: str
    parts: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.partition, str) or not self.partition:
            raise _wrong(self, "partition", "wanted a text")
        if not isinstance(self.parts, tuple) or not self.parts:
            raise _wrong(self, "parts", "wanted a tuple of one or more events")
        for event in self.parts:
            _event(self, "parts", event)


Event = (
    Gaussian
    | AdaptiveClipBits
    | Laplace
    | DiscreteGaussian
    | Skellam
    | LocalEpsilon
    | CorrelatedGaussian
    | NonPrivate
    | PoissonSampled
    | FixedSizeSampled
    | Composed
    | Repeated
    | Disjoint
)
"""Any of the above; an accountant refuses everything else."""

KINDS: tuple[type[Event], ...] = Event.__args__


def _number(
    event: object, name: str, *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> None:
    value = getattr(event, name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _wrong(event, name, "wanted a finite number")
    if not (value >= at_least and value > above and value <= at_most):
        low = f"> {above:g}" if math.isfinite(above) else f">= {at_least:g}"
        raise _wrong(event, name, f"wanted {low}" + (f" and <= {at_most:g}" if math.isfinite(at_most) else ""))
    object.__setattr__(event, name, float(value))  # 1 and 1.0 are the same release, and the same JSON


def _whole(event: object, name: str, *, at_least: int) -> None:
    value = getattr(event, name)
    if type(value) is not int or value < at_least:
        raise _wrong(event, name, f"wanted a whole number >= {at_least}")


def _event(holder: object, name: str, value: object) -> None:
    if not isinstance(value, KINDS):
        raise _wrong(holder, name, f"wanted an event of {__name__}")


def _wrong(event: object, name: str, wanted: str) -> PrivacyError:
    names = ", ".join(field.name for field in fields(event))  # type: ignore[arg-type]
    arrived = repr(getattr(event, name))[:200]
    return PrivacyError(f"{type(event).__name__}({names}): `{name}` is {arrived}; {wanted}")
