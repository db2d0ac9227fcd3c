"""Parallel composition: where a unit can be, and what was released there.

A unit is in one part of a partition alone. So releases are added up for each part by itself, with what was released of
all data beside it, and the worst of these sums is what is promised to everybody.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

from hanse.core.errors import PrivacyError, UnknownEventError
from hanse.privacy.events import Composed, Disjoint, Event, FixedSizeSampled, PoissonSampled, Repeated

_MOST = 256  # places that a unit may be in, which are accounted for one by one


def by_place(events: Mapping[Event, int]) -> list[Counter[Event]]:
    """What was released of a unit, for each place where it can be; one sum where nothing is disjoint.

    Args:
      events: Events, and how often each happened.

    Raises:
      PrivacyError: Two releases of one partition have different numbers of parts, or there are too many places.
      UnknownEventError: Disjoint releases inside a sampled one.

    >>> from hanse.privacy.events import Gaussian
    >>> one, two = Gaussian(noise_multiplier=1.0), Gaussian(noise_multiplier=2.0)
    >>> [dict(found) for found in by_place({Disjoint(partition="clients", parts=(one, two)): 3})]
    [{Gaussian(noise_multiplier=1.0): 3}, {Gaussian(noise_multiplier=2.0): 3}]
    """
    widths: dict[str, int] = {}
    for event in events:
        for found in _inside(event):
            if widths.setdefault(found.partition, len(found.parts)) != len(found.parts):
                raise PrivacyError(
                    f"the partition `{found.partition}` has {widths[found.partition]} parts in one release and "
                    f"{len(found.parts)} in another, so they can't be added up part by part",
                    hint="give each way to share units out a name of its own",
                )
    names = sorted(widths)
    places = 1
    for name in names:
        places *= widths[name]
    if places > _MOST:
        raise PrivacyError(
            f"units are shared out in {len(names)} ways at once, so that one may be in {places:,} places; at most "
            f"{_MOST} are accounted for",
            hint="account for fewer ways to share units out in one ledger",
        )
    return [
        _summed(events, dict(zip(names, chosen, strict=True)))
        for chosen in itertools.product(*(range(widths[name]) for name in names))
    ]


def _summed(events: Mapping[Event, int], place: Mapping[str, int]) -> Counter[Event]:
    found: Counter[Event] = Counter()
    for event, count in events.items():
        found[_at(event, place)] += count
    return found


def _at(event: Event, place: Mapping[str, int]) -> Event:
    """The event as it is for a unit in one place."""
    if isinstance(event, Disjoint):
        return _at(event.parts[place[event.partition]], place)
    if isinstance(event, Composed):
        return Composed(events=tuple(_at(part, place) for part in event.events))
    if isinstance(event, Repeated):
        return Repeated(event=_at(event.event, place), count=event.count)
    return event


def _inside(event: Event, *, sampled: bool = False) -> Iterator[Disjoint]:
    if isinstance(event, Disjoint):
        if sampled:
            raise UnknownEventError(
                "Disjoint inside a sample: which part a sample was drawn from is not analysed",
                hint="describe the sampling inside of each part",
            )
        yield event
        for part in event.parts:
            yield from _inside(part)
    elif isinstance(event, Composed):
        for part in event.events:
            yield from _inside(part, sampled=sampled)
    elif isinstance(event, Repeated):
        yield from _inside(event.event, sampled=sampled)
    elif isinstance(event, PoissonSampled | FixedSizeSampled):
        yield from _inside(event.event, sampled=True)
