"""How a metric is spread over clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hanse.core.units import better_of, format_metric, plural
from hanse.plots.spread import Spread, spread_of
from hanse.plots.style import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    clean,
    label_metric,
    metric_title,
    new_figure,
    shorten,
)
from hanse.rounds.history import ClientScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 40
"""Up to so many clients each get a row with their name; more become a curve over all of them."""


def draw_clients(scores: Sequence[ClientScore], metric: str, *, better: Literal["max", "min"] | None = None) -> Figure:
    """Draws the spread of a metric over clients, the worst tenth in its own colour.

    Up to 40 clients: one row each, best on top. More: the clients side by side from worst to
    best, as a curve.

    Args:
      scores: One for each client, as in `RoundRecord.clients`.
      metric: Name of the metric.
      better: Which way it is better; known by the name where None is given.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    spread = spread_of(scores, metric, better=better or better_of(metric))
    named = len(spread.clients) <= MOST_NAMED
    height = 1.35 + 0.235 * max(2, len(spread.clients)) if named else 3.6
    figure = new_figure(height, title=f"{metric_title(metric)} of each client", subtitle=_subtitle(spread))
    axes = figure.add_subplot()
    if not spread.clients:
        clean(axes, grid="none")
        axes.set_axis_off()
    elif named:
        _rows(axes, spread)
    else:
        _curve(axes, spread)
    return figure


def _subtitle(spread: Spread) -> str:
    if not spread.clients:
        return (
            f"none of {plural(len(spread.missing), 'client')} has a finite value"
            if spread.missing
            else "no client was evaluated"
        )
    parts = [f"mean {format_metric(spread.metric, spread.mean)}"]
    if len(spread.clients) > 1:
        worst = f"worst 10 % ({plural(spread.num_worst, 'client')})"
        parts.append(f"{worst}: {format_metric(spread.metric, spread.worst_mean)}")
    if spread.missing:
        parts.append(f"{plural(len(spread.missing), 'client')} without a finite value, left out")
    return " · ".join(parts)


def _colors(spread: Spread) -> list[str]:
    good = len(spread.values) - (spread.num_worst if len(spread.values) > 1 else 0)
    return [BLUE if index < good else VERMILLION for index in range(len(spread.values))]


def _rows(axes: Axes, spread: Spread) -> None:
    clean(axes, grid="x")
    rows = np.arange(len(spread.values))[::-1]
    colors = _colors(spread)
    axes.axvline(spread.mean, color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)), zorder=1, label="mean")
    axes.hlines(rows, spread.mean, spread.values, color=colors, linewidth=2, alpha=0.45, zorder=2)
    axes.scatter(spread.values, rows, s=42, color=colors, zorder=3)
    axes.set_yticks(rows, [shorten(client, 28) for client in spread.clients])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    for row, value, color in zip(rows, spread.values, colors, strict=True):
        axes.annotate(
            format_metric(spread.metric, value),
            xy=(1, row),
            xycoords=axes.get_yaxis_transform(),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            size=9,
            color=color if color == VERMILLION else INK,
        )
    axes.annotate(
        "mean",
        xy=(spread.mean, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=MUTED,
        size=8.5,
    )
    low, high = min(spread.values), max(spread.values)
    air = 0.06 * (high - low) or 0.02 * abs(high) or 0.02
    axes.set_xlim(low - air, high + air)
    label_metric(axes, spread.metric, axis="x")


def _curve(axes: Axes, spread: Spread) -> None:
    clean(axes)
    count = len(spread.values)
    position = (np.arange(count) + 0.5) / count * 100
    values = np.array(spread.values[::-1])
    keep = np.unique(np.linspace(0, count - 1, min(count, 400)).round().astype(int))
    edge = 100 * spread.num_worst / count
    axes.axvspan(0, edge, color=VERMILLION, alpha=0.10, linewidth=0)
    axes.plot(position[keep], values[keep], color=BLUE, linewidth=2.2, zorder=3, label="clients")
    worst = keep[keep < spread.num_worst]
    axes.plot(position[worst], values[worst], color=VERMILLION, linewidth=2.6, zorder=4, label="worst 10 %")
    axes.axhline(spread.mean, color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)), zorder=2, label="mean")
    _name_values(axes, spread, edge)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{count:,} clients, worst to best [%]")
    label_metric(axes, spread.metric)


def _name_values(axes: Axes, spread: Spread, edge: float) -> None:
    """Writes mean, median and the worst tenth's mean where they are."""
    middle = spread.at(0.5)
    above, rising = middle >= spread.mean, spread.values[0] >= spread.values[-1]
    text: dict[str, Any] = {"textcoords": "offset points", "va": "center", "size": 9}
    axes.annotate(
        f"worst 10 %: {format_metric(spread.metric, spread.worst_mean)} on average",
        xy=(edge, spread.worst_mean),
        xytext=(6, 0),
        color=VERMILLION,
        weight="bold",
        **text,
    )
    axes.annotate(
        f"median {format_metric(spread.metric, middle)}",
        xy=(50, middle),
        # on the side of the curve that neither the curve nor the line of the mean crosses
        xytext=(0, 11 if above else -12),
        ha="right" if above == rising else "left",
        color=BLUE,
        weight="bold",
        **text,
    )
    axes.annotate(
        f"mean {format_metric(spread.metric, spread.mean)}",
        xy=(1, spread.mean),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, 0),
        color=MUTED,
        **text,
    )
