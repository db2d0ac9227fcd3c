"""Bytes between the server and its clients, adding up over the rounds."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from hanse.core.units import byte_unit, format_bytes
from hanse.plots.style import BLUE, VERMILLION, clean, new_figure, spread_labels, whole_rounds
from hanse.rounds.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_communication(history: History) -> Figure:
    """Draws the bytes sent so far by round: up (from clients) and down (to clients).

    Args:
      history: Of one run.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    rounds = [record.round for record in history.rounds]
    up = list(accumulate(record.bytes_up for record in history.rounds))
    down = list(accumulate(record.bytes_down for record in history.rounds))
    totals = f"{format_bytes(history.bytes_up)} from clients, {format_bytes(history.bytes_down)} to clients"
    figure = new_figure(3.0, title="Bytes sent so far", subtitle=totals)
    axes = figure.add_subplot()
    clean(axes)
    if not rounds:
        axes.set_axis_off()
        return figure
    divisor, unit = byte_unit(max(up[-1], down[-1]))
    # up is drawn dashed over down: where every client answers, the two are one line
    axes.plot(rounds, [value / divisor for value in down], color=BLUE, linewidth=2.2, label="down", marker=_dot(rounds))
    axes.plot(
        rounds,
        [value / divisor for value in up],
        color=VERMILLION,
        linewidth=2.2,
        linestyle=(0, (3, 3)),
        label="up",
        marker=_dot(rounds),
        markersize=4,
    )
    top = max(up[-1], down[-1]) / divisor or 1.0
    axes.set_ylim(-0.02 * top, 1.06 * top)
    ends = [down[-1] / divisor, up[-1] / divisor]
    for name, color, height in zip(("down", "up"), (BLUE, VERMILLION), spread_labels(ends, 0.13 * top), strict=True):
        axes.annotate(
            name,
            xy=(1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=color,
            size=9,
            weight="bold",
        )
    whole_rounds(axes, rounds[0], rounds[-1])
    from matplotlib.ticker import FuncFormatter  # only here, where matplotlib is known to be there

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel(f"Sent so far [{unit}]")
    return figure


def _dot(rounds: list[int]) -> str | None:
    return "o" if len(rounds) == 1 else None
