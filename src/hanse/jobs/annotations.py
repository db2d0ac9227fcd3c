"""What a setting's type annotation says: which choices it allows, and how to say so in words."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hanse.jobs.registry import Kind

SEAMS: Mapping[str, Kind] = {
    "hanse.aggregators.robust.mixing:Mixer": "mixer",
    "hanse.aggregators.robust.rule:Rule": "rule",
    "hanse.core.adversarial:Perturbation": "perturbation",
    "hanse.core.corrections.correction:GradientCorrection": "correction",
    "hanse.core.objectives:LocalObjective": "objective",
    "hanse.core.optimizers:Optimizer": "optimizer",
    "hanse.core.protocols:Aggregator": "aggregator",
    "hanse.core.protocols:Preprocess": "preprocess",
    "hanse.core.protocols:Stage": "stage",
    "hanse.core.protocols:Strategy": "strategy",
    "hanse.core.schedules:Schedule": "schedule",
    "hanse.core.stepping:Stepping": "stepping",
    "hanse.data.partition.base:Partitioner": "partition",
    "hanse.pipeline.mechanism:AddsNoise": "mechanism",
    "hanse.rounds.selection.population:Selector": "cohort",
    "hanse.rounds.staleness:Staleness": "staleness",
    "hanse.strategies.graphs:Graph": "graph",
    "hanse.tasks.estimator:LinearModel": "estimator",
    "hanse.tasks.losses:Loss": "loss",
    "hanse.tasks.models.base:ModelFactory": "model",
}
"""Protocols whose implementations a job names by `use`; by name, so that none has to be imported."""

_WORDS: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    types.NoneType: '"none"',
}


@dataclass(frozen=True)
class Setting:
    """One setting of a target.

    Args:
      name: Its key.
      annotation: Its type; `Any` where none is known.
      default: `inspect.Parameter.empty` where it must be given.
    """

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def members(self) -> tuple[Any, ...]:
        """The annotation's alternatives, for a union; else itself."""
        return union_members(self.annotation)


def settings_of(target: Any) -> dict[str, Setting]:
    """What can be set when `target` is called, by name; positional-only arguments and private ones can't."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # built in C, or not callable
        return {}
    hints = _hints(target)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    factories = _factories(target)
    return {
        name: Setting(name, hints.get(name, Any), factories[name]() if name in factories else parameter.default)
        for name, parameter in parameters.items()
        if parameter.kind in named and not name.startswith("_")
    }


def _factories(target: Any) -> dict[str, Callable[[], Any]]:
    """A dataclass's default factories by field; its signature shows a placeholder instead."""
    if not (inspect.isclass(target) and dataclasses.is_dataclass(target)):
        return {}
    fields = dataclasses.fields(target)
    return {f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING}


def _hints(target: Any) -> dict[str, Any]:
    source = target
    if inspect.isclass(target) and not dataclasses.is_dataclass(target):
        source = target.__init__
    try:
        return typing.get_type_hints(source)
    except Exception:  # noqa: BLE001  annotations are somebody's strings and may name what is not imported
        return {}


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, nested ones included; else the annotation itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in union_members(part))
    if get_origin(annotation) is typing.Annotated:
        return union_members(get_args(annotation)[0])
    return (annotation,)


def seam_of(annotation: Any) -> Kind | None:
    """The kind of choice that an annotation stands for, or None."""
    found = get_origin(annotation) or annotation  # Strategy[Any] is Strategy
    return SEAMS.get(f"{getattr(found, '__module__', '')}:{getattr(found, '__qualname__', '')}")


def element_of(annotation: Any) -> Any:
    """The type of the elements of a list or tuple of any length; None where it is neither."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable) and arguments:
        return arguments[0]
    return None


def literals_of(members: tuple[Any, ...]) -> tuple[object, ...]:
    """All values that the alternatives name literally."""
    return tuple(value for member in members if get_origin(member) is Literal for value in get_args(member))


def in_words(annotation: Any) -> str:
    """What is wanted, for a message.

    >>> in_words(int | Literal["all"])
    'a whole number or "all"'
    """
    words: list[str] = []
    members = union_members(annotation)
    for member in members:
        if member is types.NoneType and str in members:
            continue  # there "none" would be a string like any other
        if get_origin(member) is Literal:
            words += [_quoted(value) for value in get_args(member)]
        elif (element := element_of(member)) is not None:
            words.append(f"a list, each {in_words(element)}")
        elif (kind := seam_of(member)) is not None:
            words.append(f"{'an' if kind[0] in 'aeo' else 'a'} {kind}")
        elif dataclasses.is_dataclass(member) or get_origin(member) in (dict, collections.abc.Mapping):
            words.append("a table")
        elif get_origin(member) is tuple:
            words.append(f"a list of {len(get_args(member))}")
        else:
            words.append(_WORDS.get(member, f"a value of type {getattr(member, '__name__', member)}"))
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
