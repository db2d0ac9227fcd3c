"""What privacy a run has spent, by round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hanse.plots.style import BLUE, GREY, MUTED, clean, new_figure, whole_rounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_privacy(epsilon: Mapping[int, float], *, budget: float | None = None, subtitle: str = "") -> Figure:
    """Draws ε after rounds, and the budget above it.

    Args:
      epsilon: Round to what was spent by then; infinite values are left out.
      budget: The run's largest ε; None draws no line.
      subtitle: What ε is told of, in one line.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    known = {number: value for number, value in sorted(epsilon.items()) if math.isfinite(value)}
    figure = new_figure(2.8, title="Privacy spent by round", subtitle=subtitle)
    axes = figure.add_subplot()
    clean(axes)
    if not known:
        axes.set_axis_off()
        return figure
    rounds, values = list(known), list(known.values())
    axes.plot(rounds, values, color=BLUE, linewidth=2.2, label="ε", marker="o", markersize=4)
    top = max(max(values), budget or 0.0) or 1.0
    if budget is not None:
        axes.axhline(budget, color=GREY, linewidth=1.4, linestyle=(0, (4, 3)), label="budget")
        axes.annotate(
            f"budget {budget:g}",
            xy=(0, budget),
            xycoords=axes.get_yaxis_transform(),
            xytext=(2, 4),
            textcoords="offset points",
            va="bottom",
            color=MUTED,
            size=9,
        )
    axes.annotate(
        f"{values[-1]:.4g}",
        xy=(rounds[-1], values[-1]),
        xytext=(0, -7 if budget is not None else 6),
        textcoords="offset points",
        ha="center",
        va="top" if budget is not None else "bottom",
        color=BLUE,
        size=9,
        weight="bold",
    )
    axes.set_ylim(0, 1.18 * top)
    axes.set_ylabel("ε so far")
    whole_rounds(axes, rounds[0], rounds[-1])
    return figure
