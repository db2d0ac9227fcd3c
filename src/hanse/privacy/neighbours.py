"""Which two data sets count as neighbours: what a guarantee is about.

| relation | the neighbour is the same data … | sensitivity of a sum clipped to norm C |
|---|---|---|
| add-or-remove-one | with one unit more, or less | C |
| zero-out-one | with one unit's contribution set to zero, its presence known | C |
| replace-one | with one unit replaced by any other | 2 C |

Poisson sampling is analysed under the first two, sampling of fixed size under the third, correlated noise under the
second (a unit's place in the schedule is not hidden) and, with doubled sensitivity, the third. So are sums with noise
in shares, of which a unit that is not there would take one away. A purely local report protects against replacement as
it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from hanse.core.errors import PrivacyError, did_you_mean
from hanse.privacy.events import (
    Composed,
    CorrelatedGaussian,
    DiscreteGaussian,
    Disjoint,
    Event,
    FixedSizeSampled,
    LocalEpsilon,
    PoissonSampled,
    Repeated,
    Skellam,
)

Neighbours = Literal["add-or-remove-one", "zero-out-one", "replace-one"]


class _Shares:
    """Stands for noise to which each unit adds its share."""


def neighbours_of(events: Iterable[Event]) -> Neighbours:
    """The relation under which all these events can be accounted for together.

    Raises:
      PrivacyError: There is none: Poisson sampling and sampling of fixed size are mixed.

    >>> from hanse.privacy.events import Gaussian
    >>> neighbours_of([FixedSizeSampled(sample=1, population=9, event=Gaussian(noise_multiplier=1))])
    'replace-one'
    """
    kinds = set().union(*(_kinds(event) for event in events))
    if FixedSizeSampled in kinds:
        if PoissonSampled in kinds:
            raise PrivacyError(
                "Poisson sampling is accounted for under adding or removing a unit, sampling of fixed size under "
                "replacing one: their costs can't be added",
                hint="sample in one way for everything that one ledger accounts for",
            )
        return "replace-one"
    if kinds == {LocalEpsilon}:
        return "replace-one"
    return "zero-out-one" if kinds & {CorrelatedGaussian, LocalEpsilon, _Shares} else "add-or-remove-one"


def check_neighbours(relation: Neighbours, events: Iterable[Event]) -> None:
    """Refuse a relation under which an event is not analysed.

    Raises:
      PrivacyError: The relation is no relation, or not one of this event's.
    """
    if relation not in get_args(Neighbours):
        raise PrivacyError(
            f"neighbours is {relation!r}", hint=did_you_mean(str(relation), map(str, get_args(Neighbours)))
        )
    for kind in set().union(*(_kinds(event) for event in events)):
        refused = {
            FixedSizeSampled: relation != "replace-one",
            PoissonSampled: relation == "replace-one",
            CorrelatedGaussian: relation == "add-or-remove-one",
            LocalEpsilon: relation == "add-or-remove-one",
        }
        if refused.get(kind, False):
            raise PrivacyError(
                f"{kind.__name__} is not accounted for under neighbours {relation}",
                hint="leave `neighbours` out to let the events decide",
            )


def _kinds(event: Event) -> set[type]:
    if isinstance(event, Composed):
        return set().union(*(_kinds(part) for part in event.events))
    if isinstance(event, Disjoint):
        return set().union(*(_kinds(part) for part in event.parts))
    if isinstance(event, Repeated):
        return _kinds(event.event)
    if isinstance(event, PoissonSampled | FixedSizeSampled):
        return {type(event)} | _kinds(event.event)
    if isinstance(event, Skellam) or (isinstance(event, DiscreteGaussian) and event.num_shares > 1):
        return {type(event), _Shares}
    return {type(event)}
