"""Where the time of a run went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hanse.core.units import format_seconds
from hanse.plots.style import BLUE, INK, clean, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_phases(seconds: Mapping[str, float]) -> Figure:
    """Draws the time by phase, longest first, with its share of the whole.

    Args:
      seconds: Phase to wall-clock seconds, as `History.total_seconds` gives them.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    timed = {phase: float(value) for phase, value in seconds.items() if math.isfinite(value) and value >= 0}
    ranked = sorted(timed.items(), key=lambda pair: (-pair[1], pair[0]))
    total = math.fsum(timed.values())
    figure = new_figure(
        1.0 + 0.30 * max(1, len(ranked)),
        title="Time by phase",
        subtitle=f"{format_seconds(total)} in all" if ranked else "nothing was timed",
    )
    axes = figure.add_subplot()
    clean(axes, grid="none")
    axes.set_xticks([])
    if not ranked:
        axes.set_axis_off()
        return figure
    rows = list(range(len(ranked)))[::-1]
    axes.barh(rows, [value for _, value in ranked], height=0.66, color=BLUE, label="seconds")
    for row, (_, value) in zip(rows, ranked, strict=True):
        share = f" ({100 * value / total:.0f} %)" if total else ""
        axes.annotate(
            format_seconds(value) + share,
            xy=(value, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=9,
            color=INK,
        )
    axes.set_yticks(rows, [shorten(phase, 28) for phase, _ in ranked])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlim(0, 1.22 * (ranked[0][1] or 1.0))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    return figure
