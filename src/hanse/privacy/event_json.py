"""Events as JSON values: strict and versioned, so that a ledger never misreads what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from hanse.core.errors import PrivacyError, UnknownEventError, did_you_mean
from hanse.privacy.events import (
    KINDS,
    AdaptiveClipBits,
    Composed,
    CorrelatedGaussian,
    DiscreteGaussian,
    Disjoint,
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

EVENT_VERSION = 1
"""Goes up when the meaning of a written event changes; older versions stay readable."""

_NAMES: dict[str, type[Event]] = {
    "gaussian": Gaussian,
    "adaptive-clip-bits": AdaptiveClipBits,
    "laplace": Laplace,
    "discrete-gaussian": DiscreteGaussian,
    "skellam": Skellam,
    "local-epsilon": LocalEpsilon,
    "correlated-gaussian": CorrelatedGaussian,
    "non-private": NonPrivate,
    "poisson-sampled": PoissonSampled,
    "fixed-size-sampled": FixedSizeSampled,
    "composed": Composed,
    "repeated": Repeated,
    "disjoint": Disjoint,
}
_KIND_NAMES = {kind: name for name, kind in _NAMES.items()}
_MAX_DEPTH = 32  # nobody nests deeper on purpose; what others send must not exhaust the stack


def event_to_dict(event: Event) -> dict[str, Any]:
    """The event as values that JSON knows, with the version of this way of writing.

    Raises:
      UnknownEventError: It is no event of `hanse.privacy.events`.

    >>> event_to_dict(Repeated(event=Gaussian(noise_multiplier=2), count=3)).get("event").get("count")
    3
    """
    return {"version": EVENT_VERSION, "event": _written(event)}


def event_from_dict(values: object) -> Event:
    """Read what `event_to_dict` returned; nothing may be missing, added, or of another type.

    Raises:
      UnknownEventError: The version or the kind of event is not known here.
      PrivacyError: A value is missing, superfluous or impossible.

    >>> event_from_dict({"version": 1, "event": {"kind": "gaussian", "noise_multiplier": 1.5}})
    Gaussian(noise_multiplier=1.5)
    """
    if not isinstance(values, Mapping) or set(values) != {"version", "event"}:
        raise PrivacyError(f'an event is written as {{"version": …, "event": …}}; this is {str(values)[:200]}')
    if type(values["version"]) is not int or values["version"] != EVENT_VERSION:
        raise UnknownEventError(
            f"an event of version {str(values['version'])[:50]}; this Hanse reads version {EVENT_VERSION}",
            hint="read the ledger with the version of Hanse that wrote it, or a newer one",
        )
    return _read(values["event"], 0)


def _written(event: Event) -> dict[str, Any]:
    kind = _KIND_NAMES.get(type(event))
    if kind is None:
        raise UnknownEventError(f"{type(event).__name__} is no privacy event", hint="use hanse.privacy.events")
    return {"kind": kind, **{field.name: _value(getattr(event, field.name)) for field in fields(event)}}


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return _written(value) if isinstance(value, KINDS) else value


def _read(values: object, depth: int) -> Event:
    if depth > _MAX_DEPTH:
        raise PrivacyError(f"an event is nested deeper than {_MAX_DEPTH} levels")
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise PrivacyError(f"an event has a `kind`; this is {str(values)[:200]}")
    name = values["kind"]
    kind = _NAMES.get(name)
    if kind is None:
        raise UnknownEventError(f"no event is called `{name[:100]}`", hint=did_you_mean(name[:100], _NAMES))
    wanted = {field.name: field for field in fields(kind)}
    unknown = set(values) - {"kind"} - set(wanted)
    absent = {n for n, field in wanted.items() if field.default is MISSING} - set(values)
    if unknown or absent:
        problem = f"does not know {sorted(unknown)}" if unknown else f"lacks {sorted(absent)}"
        raise PrivacyError(f"the event `{name}` {str(problem)[:300]}")
    arguments = {n: value for n, value in values.items() if n != "kind"}
    if kind in (Composed, Disjoint):
        inner = "events" if kind is Composed else "parts"
        if not isinstance(arguments[inner], list):
            raise PrivacyError(f"the {inner} of `{name}` are a list")
        arguments[inner] = tuple(_read(item, depth + 1) for item in arguments[inner])
    elif "event" in arguments:
        arguments["event"] = _read(arguments["event"], depth + 1)
    return kind(**arguments)
