"""The known data sets and partitioners, as tables."""

from __future__ import annotations

import inspect
import re
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hanse.core.errors import HanseError
from hanse.jobs.annotations import settings_of
from hanse.jobs.build import shown
from hanse.jobs.describe import plain
from hanse.jobs.registry import Kind, find, known_names


def as_values() -> dict[str, Any]:
    """Names to what is said about them, for other programs."""
    return {"sets": _described("data"), "partitioners": _described("partition")}


def catalogue_tables() -> RenderableType:
    """The data sets and partitioners, with their settings."""
    sets, partitioners = _described("data"), _described("partition")
    left = _table("Data sets", "name", "what", "comes from")
    for name, about in sets.items():
        left.add_row(Text(name, style="bold"), Text(about["what"]), Text(about["comes_from"]))
    right = _table("Partitioners", "name", "what", "settings")
    for name, about in partitioners.items():
        right.add_row(Text(name, style="bold"), Text(about["what"]), _settings(about))
    hint = "See who would hold what: hanse data show digits --partition dirichlet --alpha 0.3 --clients 20"
    return Group(left, right, Text(hint, style="dim"))


def _described(kind: Kind) -> dict[str, dict[str, Any]]:
    found = {}
    for name in sorted(known_names(kind)):
        try:
            target = find(kind, name, where=kind)
        except HanseError as error:  # somebody's entry point that does not load
            found[name] = {"what": error.message, "comes_from": "another package", "settings": {}}
            continue
        settings = settings_of(target)
        found[name] = {
            "what": _first_clause(inspect.getdoc(target) or ""),
            "comes_from": _origin(set(settings)),
            "settings": {key: None if s.required else plain(s.default, s.annotation) for key, s in settings.items()},
        }
    return found


def _first_clause(text: str) -> str:
    """What a docstring says first, without the shapes and columns behind it.

    >>> _first_clause("10 wines: x float32 `[n, 13]`; group column `grower`.")
    '10 wines'
    """
    line = text.partition("\n")[0].replace("`", "")
    return re.split(r"[:,;] x float|[:;.](?= |$)|(?<=\?) ", line)[0]


def _origin(settings: set[str]) -> str:
    if "path" in settings:
        return "your own files"
    return "--data-dir" if "data_dir" in settings else "scikit-learn"


def _settings(about: dict[str, Any]) -> Text:
    given = about["settings"].items()
    parts = (
        key if value is None else f"{key}=none" if value == "none" else f"{key}={shown(value)}" for key, value in given
    )
    return Text(", ".join(parts), style="dim")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    return table
