"""An object as the plain values of a job file: what `build` reads back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.jobs.annotations import element_of, seam_of, settings_of, union_members
from hanse.jobs.registry import Kind, name_of


def plain(value: Any, annotation: Any = Any) -> Any:
    """A default value as it would stand in a job file; `None` becomes ``"none"``, for TOML has no null.

    Args:
      value: Numbers, strings, lists, and dataclasses of these.
      annotation: The setting's type; says which tables need a `use`.
    """
    if value is None:
        return "none"
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        inner = next((e for m in union_members(annotation) if (e := element_of(m)) is not None), Any)
        return [plain(item, inner) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _table(value, annotation)
    return str(value)


def _table(value: Any, annotation: Any) -> dict[str, Any]:
    kind: Kind | None = next((k for m in union_members(annotation) if (k := seam_of(m)) is not None), None)
    found: dict[str, Any] = {} if kind is None else {"use": name_of(kind, type(value))}
    for name, setting in settings_of(type(value)).items():
        item = getattr(value, name)
        if item is not None or setting.default is not None:
            found[name] = plain(item, setting.annotation)
    return found
