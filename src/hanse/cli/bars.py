"""Who holds what, as bars on the terminal; told apart by shade, and by colour where there is any."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hanse.data.summary import PartitionSummary

_WIDTH = 48
_GLYPHS = "█▓▒░"
_COLORS = ("blue", "yellow", "green", "magenta")
_SHADES = " ░▒▓█"


def bars(summary: PartitionSummary, *, most: int = 40) -> RenderableType:
    """A row for each client: its examples as a bar.

    Up to four classes stand stacked in the bar; of more, each has a cell, shaded by its share of the client's
    examples.

    Args:
      summary: Who holds what.
      most: So many clients are shown, evenly spaced.
    """
    count = len(summary.clients)
    rows = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    counts = summary.class_counts
    totals = summary.sizes if counts is None else counts.sum(axis=1)
    largest = max(1, int(totals.max(initial=1)))
    for row in rows.tolist():
        if counts is None:
            picture = Text(_GLYPHS[0] * _cells(int(totals[row]), largest), style=_COLORS[0])
        elif counts.shape[1] <= len(_GLYPHS):
            picture = _stacked(counts[row], largest)
        else:
            picture = _shaded(counts[row])
        table.add_row(Text(summary.clients[row]), f"{int(totals[row]):,}", picture)
    parts: list[RenderableType] = [table, _key(summary)]
    if len(rows) < summary.num_clients:
        parts.append(Text(f"{len(rows):,} of {summary.num_clients:,} clients are shown", style="dim"))
    return Group(*parts)


def _cells(examples: int, largest: int) -> int:
    """Width of a bar; who holds anything at all gets a cell."""
    return max(1, round(_WIDTH * examples / largest)) if examples else 0


def _stacked(counts: np.ndarray, largest: int) -> Text:
    """One class after the other; rounded running sums, so that the whole keeps its width."""
    edges = np.rint(_WIDTH * np.cumsum(counts) / largest).astype(int)
    text, at = Text(), 0
    for i, edge in enumerate(edges.tolist()):
        width = max(edge - at, 1 if counts[i] else 0)
        text.append(_GLYPHS[i] * width, style=_COLORS[i])
        at += width
    return text


def _shaded(counts: np.ndarray) -> Text:
    share = counts / max(1, int(counts.sum()))
    levels = np.where(counts > 0, np.clip(np.ceil(share * 2 * len(_SHADES)), 1, len(_SHADES) - 1), 0).astype(int)
    wide = 2 if len(counts) <= _WIDTH // 2 else 1
    return Text("".join(_SHADES[level] * wide for level in levels.tolist()), style=_COLORS[0])


def _key(summary: PartitionSummary) -> Text:
    if summary.class_counts is None:
        return Text("")
    if len(summary.classes) <= len(_GLYPHS):
        text = Text()
        for i, name in enumerate(summary.classes):
            text.append(f"{_GLYPHS[i]} ", style=_COLORS[i]).append(f"{name}   ", style="dim")
        return text
    first, last = summary.classes[0], summary.classes[-1]
    return Text(f"a cell for each class, from {first} to {last}; the darker, the larger its share", style="dim")
