"""`Builder`: from the tables of a job file to objects, with every problem on the way gathered."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hanse.core.errors import HanseError, JobError, JobProblems, SettingError, did_you_mean
from hanse.jobs.annotations import (
    Setting,
    element_of,
    in_words,
    literals_of,
    seam_of,
    settings_of,
)
from hanse.jobs.describe import plain
from hanse.jobs.own_model import FROM_DATA, OwnModel, is_own_model
from hanse.jobs.registry import Kind, find, path_of

Admit = Callable[[Kind, str, str], None]
"""Raises a `HanseError` for what may not be built: kind, ``module:object``, where it stands. Asked before importing."""

Table = Mapping[str, Any]


class _Failed:
    """What stands where an object could not be built; the builder has noted why."""

    def __repr__(self) -> str:
        return "FAILED"


FAILED: Final = _Failed()

_SEEDS = ("generator", "random_state", "rng", "seed")

_NEEDS: Mapping[Kind, tuple[str, ...]] = {
    "aggregator": ("zero", "accumulate", "merge", "finish"),
    "cohort": ("select", "check"),
    "correction": ("correct", "finish"),
    "graph": ("mixing",),
    "mechanism": ("noise_multiplier", "with_noise"),
    "mixer": ("num_rows", "matrix"),
    "model": ("build",),
    "objective": ("keeps", "layer", "term"),
    "optimizer": ("init", "update"),
    "partition": ("__call__",),
    "perturbation": ("share", "idle", "num_gradients", "perturbed"),
    "preprocess": ("apply", "local_statistics"),
    "rule": ("fewest", "combine"),
    "schedule": ("factor",),
    "stage": ("encode", "decode", "finish"),
    "staleness": ("factor",),
    "stepping": ("begin", "step"),
    "strategy": ("init", "step", "local_work", "weighting"),
}

PRESETS: Mapping[tuple[Kind, str], Table] = {
    ("task", "linear_regression"): {"use": "regression", "model": {"use": "linear"}},
    ("task", "logistic_regression"): {"use": "classification", "model": {"use": "linear"}},
}
"""Names that stand for others with some settings chosen."""


@dataclass
class Builder:
    """Builds what a job's tables describe.

    Nothing is raised for a bad table: `problems` gathers what is wrong, and `FAILED` stands for what could not
    be built. `raise_problems` ends it.

    Args:
      folder: The job file's folder: relative paths start there, and modules beside the job are found there.
      admit: Asked about everything that is named, before it is imported; None admits all.
      problems: What is wrong so far.
    """

    folder: Path | None = None
    admit: Admit | None = None
    problems: list[HanseError] = field(default_factory=list)

    def choose(
        self, kind: Kind, value: object, where: str, *, given: Table | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Build the object that a table names by `use`.

        Args:
          kind: What is chosen.
          value: The table, or a name as short for a table with `use` alone.
          where: Its dotted path.
          given: Arguments that do not come from the table, for targets that take them.

        Returns:
          The object, or `FAILED`; and the table with `use` and every setting, defaults included.
        """
        table = {"use": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            return self._fail(SettingError(where, f"got {shown(value)}; wanted a table with `use`"))
        use = table.get("use")
        if not isinstance(use, str):
            problem = "missing" if use is None else f"got {shown(use)}; wanted a string"
            return self._fail(SettingError(f"{where}.use", problem, hint="`use` names what is meant"))
        if (kind, use) in PRESETS:
            return self.choose(kind, {**table, **PRESETS[kind, use]}, where, given=given)
        try:
            target = self.found(kind, use, where)
        except HanseError as error:
            return self._fail(error)
        own = {key: item for key, item in table.items() if key != "use"}
        if not (inspect.isclass(target) or inspect.isroutine(target)):
            return self._ready_made(kind, target, use, own, where)
        built, settings = self._call(target, own, where, name=use, kind=kind, given=given or {})
        if built is not FAILED:
            built = self._checked(kind, built, use, where)
        return built, {"use": use, **settings}

    def fill(
        self, target: Callable[..., Any], value: object, where: str, *, given: Table | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Build a value whose type is known, such as `LocalWork`, from a table without `use`."""
        if not isinstance(value, Mapping):
            return self._fail(SettingError(where, f"got {shown(value)}; wanted a table"))
        return self._call(target, value, where, name=where, kind=None, given=given or {})

    def attempt(self, make: Callable[[], Any], where: str) -> Any:
        """Call `make`; a `HanseError` is noted, its place put before it, and `FAILED` returned."""
        try:
            return make()
        except HanseError as error:
            self.problems.append(_placed(error, where))
            return FAILED

    def found(self, kind: Kind, use: str, where: str) -> Any:
        """What a name stands for, if it is admitted.

        Raises:
          HanseError: It is not, or there is nothing of that name.
        """
        if self.admit is None:
            return find(kind, use, where=where, folder=self.folder)
        self.admit(kind, path_of(kind, use, where=where), where)
        found = find(kind, use, where=where, folder=self.folder)
        if ":" in use:
            _require_own(found, use, where)
        return found

    def raise_problems(self, source: str) -> None:
        """Raise what was gathered, if anything: one problem as it is, several as `JobProblems`.

        Raises:
          HanseError: There are problems.
        """
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise JobProblems(self.problems, source=source)

    def _fail(self, error: HanseError) -> tuple[Any, dict[str, Any]]:
        self.problems.append(error)
        return FAILED, {}

    def _ready_made(self, kind: Kind, target: Any, use: str, own: Table, where: str) -> tuple[Any, dict[str, Any]]:
        if own:
            key = next(iter(own))
            return self._fail(SettingError(f"{where}.{key}", f"`{use}` is an object and takes no settings"))
        return self._checked(kind, target, use, where), {"use": use}

    def _checked(self, kind: Kind, built: Any, use: str, where: str) -> Any:
        missing = [name for name in _NEEDS.get(kind, ()) if not hasattr(built, name)]
        if kind == "task" and not (hasattr(built, "bind") or hasattr(built, "init_params")):
            missing = ["bind", "init_params"]
        if not missing:
            return built
        self.problems.append(
            SettingError(
                f"{where}.use",
                f"`{use}` is no {kind}: it has no `{missing[0]}`",
                hint=_MODULE_AS_TASK if kind == "task" and hasattr(built, "forward") else None,
            )
        )
        return FAILED

    def _call(
        self, target: Callable[..., Any], table: Table, where: str, *, name: str, kind: Kind | None, given: Table
    ) -> tuple[Any, dict[str, Any]]:
        settings = {key: s for key, s in settings_of(target).items() if key not in given}
        own_model = kind == "model" and is_own_model(target)
        before = len(self.problems)
        self._refuse_unknown(table, settings, where, name, seedless=getattr(target, "takes_no_seed", ""))
        arguments: dict[str, Any] = {}
        resolved: dict[str, Any] = {}
        for key, setting in settings.items():
            if key in table:
                arguments[key], resolved[key] = self._value(setting.annotation, table[key], _join(where, key))
            elif own_model and key in FROM_DATA:
                continue
            elif setting.required:
                wanted = "" if setting.annotation is Any else f" ({in_words(setting.annotation)})"
                self.problems.append(SettingError(_join(where, key), f"missing; `{name}` needs it{wanted}"))
            elif setting.default is not None:
                resolved[key] = plain(setting.default, setting.annotation)
        if len(self.problems) > before:
            return FAILED, {}
        if own_model:
            return OwnModel(make=target, settings=arguments), resolved
        taken = {key: value for key, value in given.items() if key in settings_of(target)}
        return self._made(lambda: target(**arguments, **taken), where, name), resolved

    def _made(self, make: Callable[[], Any], where: str, name: str) -> Any:
        try:
            return self.attempt(make, where)
        except Exception as error:  # noqa: BLE001  what a job names may be anybody's code
            problem = JobError(f"{where}: `{name}` could not be made: {type(error).__name__}: {error}")
            problem.__cause__ = error
            self.problems.append(problem)
            return FAILED

    def _refuse_unknown(
        self, table: Table, settings: Mapping[str, Setting], where: str, name: str, *, seedless: str = ""
    ) -> None:
        for key in table:
            if key not in settings:
                if key in _SEEDS and seedless:
                    self.problems.append(SettingError(_join(where, key), seedless, hint="leave it out"))
                    continue
                hint = did_you_mean(key, settings) if settings else f"`{name}` has no settings"
                self.problems.append(SettingError(_join(where, key), "there is no such setting", hint=hint))

    def _value(self, annotation: Any, value: Any, where: str) -> tuple[Any, Any]:
        """One setting's value as an object, and as the plain value that says the same."""
        members = Setting("", annotation, None).members
        if types.NoneType in members and value == "none" and not {str, Any} & set(members):
            return None, "none"
        literal = isinstance(value, str) and value in literals_of(members)
        for member in members:
            kind = seam_of(member)
            if kind is not None and not literal and (isinstance(value, Mapping | str)):
                return self.choose(kind, value, where)
            if dataclasses.is_dataclass(member) and isinstance(value, Mapping):
                assert isinstance(member, type)
                return self.fill(member, value, where)
            element = element_of(member)
            if _is_table(element) and isinstance(value, Sequence) and not isinstance(value, str):
                return self._list(element, value, where)
        if annotation in (Any, object):
            return self._untyped(value, where)
        return self._plain_value(annotation, members, value, where)

    def _list(self, element: Any, values: Sequence[Any], where: str) -> tuple[Any, Any]:
        pairs = [self._value(element, value, f"{where}[{i}]") for i, value in enumerate(values)]
        return tuple(built for built, _ in pairs), [table for _, table in pairs]

    def _untyped(self, value: Any, where: str) -> tuple[Any, Any]:
        """A setting of any type: a table with `use` is built (a scikit-learn estimator), all else is taken as it is."""
        if isinstance(value, Mapping) and "use" in value:
            return self.choose("estimator", value, where)
        return value, value

    def _plain_value(self, annotation: Any, members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, Any]:
        simple = [m for m in members if not (_is_table(m) or _is_table(element_of(m)))]
        if isinstance(value, str) and ":" in value and any(_is_callable_type(m) for m in simple):
            try:
                return self.found("estimator", value, where), value
            except HanseError as error:
                return self._fail(error)
        if isinstance(value, str) and Path in simple and self.folder is not None:
            value = str(self.folder / Path(value).expanduser())
        try:
            if not simple:
                raise ValueError("only a table or a name will do")
            return _validated(tuple(simple), value), value
        except (ValidationError, TypeError, ValueError):
            known = [name for name in literals_of(members) if isinstance(name, str)]
            hint = did_you_mean(value, known) if isinstance(value, str) and known and str not in members else None
            if isinstance(value, Mapping | str) and any(seam_of(element_of(m)) for m in members):
                hint = "put it into brackets: a list may have one element"
            return self._fail(SettingError(where, f"got {shown(value)}; wanted {in_words(annotation)}", hint=hint))


_MODULE_AS_TASK = 'a torch module is a model: [task] use = "classification", model = { use = "…" }'


def shown(value: object) -> str:
    """A value as it stands in a job file, shortened.

    >>> shown("abc"), shown(True), shown([1, 2])
    ('"abc"', 'true', '[1, 2]')
    """
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _validated(members: tuple[Any, ...], value: Any) -> Any:
    """The value as one of the types, strictly: no number from a string, no whole number from a fraction.

    Through JSON, whose lists may become tuples and whose strings may become paths, even strictly.
    """
    annotation: Any = members[0]
    for member in members[1:]:
        annotation = annotation | member
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    return adapter.validate_json(json.dumps(value, default=str), strict=True)


def _is_table(annotation: Any) -> bool:
    return bool(seam_of(annotation) or dataclasses.is_dataclass(annotation))


def _is_callable_type(annotation: Any) -> bool:
    import collections.abc
    from typing import get_origin

    return get_origin(annotation) is collections.abc.Callable or annotation is collections.abc.Callable


def _require_own(found: Any, path: str, where: str) -> None:
    """Refuse what a module merely imports: ``tasks:os.system`` is not the module's own."""
    home = getattr(found, "__module__", None) if inspect.isclass(found) or callable(found) else path
    if inspect.ismodule(found) or not isinstance(home, str) or home.partition(".")[0] != _top(path):
        raise SettingError(f"{where}.use", f"`{path}` is not of that module's own package, so it can't be named so")


def _top(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]


def _placed(error: HanseError, where: str) -> HanseError:
    """The error with the table's path before its own; a path that says the table's name already keeps it once."""
    if not isinstance(error, SettingError):
        return error
    last = where.rpartition(".")[2]
    inner = error.where.removeprefix(f"{where}.").removeprefix(f"{last}.")
    if inner in (where, last):
        inner = ""
    placed = SettingError(_join(where, inner) if inner else where, error.problem, hint=error.hint)
    placed.__cause__ = error
    return placed


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
