"""Many events as one small table of parts: what accountants sum over."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hanse.core.errors import UnknownEventError
from hanse.privacy.disjoint import by_place
from hanse.privacy.events import (
    KINDS,
    AdaptiveClipBits,
    Composed,
    CorrelatedGaussian,
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    LocalEpsilon,
    NonPrivate,
    PoissonSampled,
    Repeated,
    Skellam,
)
from hanse.privacy.neighbours import Neighbours, check_neighbours, neighbours_of

Part = Gaussian | Laplace | LocalEpsilon | DiscreteGaussian | Skellam | PoissonSampled | FixedSizeSampled
"""What is left of events: no compositions, and sampled events hold a Gaussian, a Laplace, or a composition."""

_LEAST_NOISE = 1e-6  # noise multiplier; below, epsilon is infinite: a bound, and nothing overflows
_MOST_NOISE = 1e9  # above, this much is accounted for: a bound as well


@dataclass(frozen=True)
class Flat:
    """Events, summed up.

    Args:
      parts: Part to how often it happened; all unsampled Gaussian noise is one Gaussian, once.
      neighbours: The relation under which to account; sensitivities in `parts` are still those of adding or removing.
      non_private: Why epsilon is infinite, or "".
    """

    parts: Mapping[Part, int]
    neighbours: Neighbours
    non_private: str = ""


def flatten(events: Event | Iterable[Event], neighbours: Neighbours | None = None) -> tuple[Flat, ...]:
    """Sum up events; compositions, repetitions and order disappear.

    Independent Gaussian releases of one data set are one Gaussian release, `1 / z^2 = sum of 1 / z_i^2`. Where releases
    are of disjoint parts of the data there is a sum for each place that a unit may be in; else there is one.

    Args:
      events: One event, or many, or a `Counter` of them.
      neighbours: The relation to account under; by default the one that the events have in common.

    Raises:
      UnknownEventError: An event, or a combination, is not analysed here.
      PrivacyError: The events have no relation in common.
    """
    given: Iterable[Event] = (events,) if isinstance(events, KINDS) else events  # type: ignore[assignment]
    try:
        listed = Counter(given if isinstance(given, Counter) else iter(given))
        strange: list[object] = [event for event in listed if not isinstance(event, KINDS)]
    except TypeError:  # it can't be iterated over, or holds what can't be hashed
        strange = [given]
    if strange:
        raise UnknownEventError(f"a {type(strange[0]).__name__} is no privacy event", hint="use hanse.privacy.events")
    relation = neighbours_of(listed) if neighbours is None else neighbours
    check_neighbours(relation, listed)
    return tuple(_flat(there, relation) for there in by_place(listed))


def _flat(events: Mapping[Event, int], relation: Neighbours) -> Flat:
    found: Counter[Event] = Counter()
    for event, count in events.items():
        _add(found, event, count)
    reasons = [part.reason for part in found if isinstance(part, NonPrivate)]
    reasons += [f"{type(part).__name__} without noise to speak of" for part in found if _is_silent(part)]
    if reasons:
        return Flat({}, relation, reasons[0])
    gaussians = {part: count for part, count in found.items() if isinstance(part, Gaussian)}
    parts = {part: count for part, count in found.items() if part not in gaussians}
    if gaussians:
        parts[_joined(gaussians)] = 1
    parts = dict(sorted(parts.items(), key=repr))  # sums in floating point: the same bits whatever the order
    return Flat(parts, relation)  # type: ignore[arg-type] # _add leaves parts alone


def _add(found: Counter[Event], event: Event, count: int) -> None:
    if isinstance(event, Composed):
        for part in event.events:
            _add(found, part, count)
    elif isinstance(event, Repeated):
        _add(found, event.event, count * event.count)
    elif isinstance(event, AdaptiveClipBits):
        found[Gaussian(noise_multiplier=event.noise_multiplier)] += count
    elif isinstance(event, CorrelatedGaussian):
        found[Gaussian(noise_multiplier=event.noise_multiplier / event.sensitivity)] += count
    elif isinstance(event, PoissonSampled | FixedSizeSampled):
        for part, times in _sampled(event).items():
            found[part] += count * times
    else:
        found[event] += count


def _sampled(event: PoissonSampled | FixedSizeSampled) -> Counter[Event]:
    """A sampled event with its contents summed up, or just these where everybody is in the sample."""
    inner: Counter[Event] = Counter()
    _add(inner, event.event, 1)
    _check_sampled(event, inner)
    loud = [part for part in inner if isinstance(part, NonPrivate) or _is_silent(part)]
    everybody = event.rate == 1 if isinstance(event, PoissonSampled) else event.sample == event.population
    if loud or everybody:
        return inner
    gaussians = {part: count for part, count in inner.items() if isinstance(part, Gaussian)}
    parts: list[Event] = [_joined(gaussians)] if gaussians else []
    parts += [Repeated(event=p, count=c) if c > 1 else p for p, c in inner.items() if p not in gaussians]
    whole = parts[0] if len(parts) == 1 else Composed(events=tuple(parts))
    return Counter([dataclasses.replace(event, event=whole)])


def _check_sampled(event: PoissonSampled | FixedSizeSampled, inner: Iterable[Event]) -> None:
    for part in inner:
        if isinstance(part, LocalEpsilon):
            raise UnknownEventError(
                f"LocalEpsilon inside {type(event).__name__}: who reads a local report knows its sender, so sampling "
                "hides nothing",
                hint="account for it outside of the sampling",
            )
        if isinstance(part, PoissonSampled | FixedSizeSampled):
            raise UnknownEventError(
                f"{type(part).__name__} inside {type(event).__name__}: a sample of a sample is not analysed",
                hint="describe it by one sampling, from all units to those that took part",
            )
    if _holds_correlated(event.event):
        raise UnknownEventError(
            f"CorrelatedGaussian inside {type(event).__name__}: its noise spans rounds, each with a sample of its own",
            hint="account for correlated noise by its participation limits, without sampling",
        )


def _holds_correlated(event: Event) -> bool:
    if isinstance(event, Composed):
        return any(_holds_correlated(part) for part in event.events)
    return isinstance(event, CorrelatedGaussian) or (isinstance(event, Repeated) and _holds_correlated(event.event))


def _is_silent(part: Event) -> bool:
    """Whether there is no noise, or so little that an epsilon would be a number without a meaning."""
    if isinstance(part, Gaussian | Laplace):
        return part.noise_multiplier < _LEAST_NOISE
    if isinstance(part, DiscreteGaussian):
        return part.stddev < _LEAST_NOISE * part.l2_sensitivity
    return isinstance(part, Skellam) and part.variance < (_LEAST_NOISE * part.l2_sensitivity) ** 2


def _joined(gaussians: Mapping[Gaussian, int]) -> Gaussian:
    """One Gaussian release that costs what all these do."""
    precision = sum(count * max(part.noise_multiplier, _LEAST_NOISE) ** -2 for part, count in gaussians.items())
    return Gaussian(noise_multiplier=min(_MOST_NOISE, precision**-0.5 if precision > 0 else _MOST_NOISE))
