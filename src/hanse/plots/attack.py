"""What a simulated backdoor came to, beside what the model is for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hanse.core.units import format_metric
from hanse.plots.end_labels import LineEnd, label_ends
from hanse.plots.style import BLUE, VERMILLION, clean, label_metric, new_figure, whole_rounds
from hanse.rounds.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_attack(history: History) -> Figure:
    """Draws by round how often the trigger works, and the model's accuracy where it was measured.

    Args:
      history: Of a run in which an attack with a trigger was simulated.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    success = {r.round: r.attack["success"] for r in history.rounds if "success" in r.attack}
    accuracy = history.series("accuracy", "central") or history.series("accuracy", "federated")
    told = ""
    if success:
        most = max(success, key=lambda at: (success[at], -at))
        told = f"at most on {format_metric('accuracy', success[most])} of examples with it, in round {most:,}"
    figure = new_figure(3.2, title="How often the trigger works", subtitle=told)
    axes = figure.add_subplot()
    clean(axes)
    if not success:
        axes.set_axis_off()
        return figure
    lines = [("trigger works", VERMILLION, success, "s"), ("accuracy", BLUE, accuracy, "o")]
    ends = []
    for name, color, values, marker in lines:
        known = {at: value for at, value in sorted(values.items()) if math.isfinite(value)}
        if not known:
            continue
        few = len(known) <= 60
        axes.plot(
            list(known),
            list(known.values()),
            color=color,
            linewidth=2,
            linestyle=(0, (4, 2)) if color == VERMILLION else "-",
            marker=marker if few else None,
            markersize=4,
        )
        last = max(known)
        ends.append(LineEnd(label=name, color=color, at=last, value=known[last]))
    label_metric(axes, "accuracy")
    axes.set_ylabel("Share of examples [%]")
    axes.set_ylim(-0.03, 1.03)
    whole_rounds(axes, min(*success, *accuracy), max(*success, *accuracy))
    label_ends(axes, ends)
    return figure
