"""Where the jobs of several runs differ, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hanse.jobs.build import shown
from hanse.rounds.history import RunRecord

_NEVER = ("name",)


def differences(jobs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Dotted key to its value in each job, for the keys that are not the same in all; ``–`` where it is not set.

    >>> differences([{"rounds": 3, "seed": 1}, {"rounds": 5, "seed": 1}])
    {'rounds': ('3', '5')}
    """
    flat = [dict(_flat(job)) for job in jobs]
    keys = dict.fromkeys(key for values in flat for key in values)
    found = {key: tuple(shown(values[key]) if key in values else "–" for values in flat) for key in keys}
    return {key: values for key, values in found.items() if key not in _NEVER and len(set(values)) > 1}


def differences_table(runs: Sequence[RunRecord]) -> RenderableType:
    """Where the jobs of runs differ; one sentence if nowhere."""
    found = differences([run.job for run in runs])
    if not found:
        return Text("The jobs are the same.", style="dim")
    table = Table(title=Text("Where the jobs differ", style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(Text("setting"), overflow="fold")
    for run in runs:
        table.add_column(Text(run.name), overflow="fold")
    for key, values in found.items():
        table.add_row(Text(key), *(Text(value) for value in values))
    return table


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
