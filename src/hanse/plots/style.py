"""The house style: colours, sizes and the few pieces that all plots share.

Colours are Okabe and Ito's (safe for the common colour-vision deficiencies), a little
darker where they carry text. Every colour has a name, so that a page can restyle a plot
for a dark background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hanse.core.errors import MissingExtraError
from hanse.core.units import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hanse.plots.picture import Picture

INK = "#1c2530"
MUTED = "#5c6773"
GRID = "#e1e5ea"
BLUE = "#0072b2"
VERMILLION = "#cc5500"
GREEN = "#00875f"
GREY = "#8993a0"
PURPLE = "#a8508f"
SKY = "#4ba3dc"
AMBER = "#d08a00"
BROWN = "#7a5c3e"
PAPER = "#ffffff"

COLORS = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "blue": BLUE,
    "vermillion": VERMILLION,
    "green": GREEN,
    "grey": GREY,
    "purple": PURPLE,
    "sky": SKY,
    "amber": AMBER,
    "brown": BROWN,
    "paper": PAPER,
}
"""Name to colour, for the whole palette."""

SERIES = (BLUE, VERMILLION, GREEN, PURPLE, AMBER, SKY, BROWN, GREY)
"""Colours of things that have no order, most distinct first."""

WIDTH = 6.8
"""Width of every figure, in inches."""

TITLE_HEIGHT = 22.0
"""Of the title alone, in points; the subtitle stands below."""

_HEAD = 0.62
_KEY_CHARACTERS = 72
_SIDE = 0.06


def new_figure(height: float, *, title: str, subtitle: str = "") -> Picture:
    """An empty figure with its title, laid out so that labels outside the axes find room.

    Args:
      height: Of the whole figure, in inches, title included.
      title: What is shown.
      subtitle: What it says, in one line.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    try:
        from hanse.plots.picture import Picture
    except ImportError as error:
        raise MissingExtraError("plotting", extra="report") from error
    figure = Picture(figsize=(WIDTH, height), dpi=150, facecolor="white", layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        pads = {"w_pad": _SIDE, "h_pad": _SIDE, "wspace": 0.03, "hspace": 0.03}
        engine.set(rect=(0, 0, 1, 1 - _HEAD / height), **pads)  # type: ignore[call-arg]
    place: dict[str, Any] = {"x": _SIDE / WIDTH, "ha": "left", "va": "baseline", "parse_math": False}
    figure.text(y=1 - 0.25 / height, s=title, size=12, weight="bold", color=INK, **place)
    figure.text(y=1 - 0.47 / height, s=subtitle, size=9, color=MUTED, **place)
    return figure


def clean(axes: Axes, *, grid: str = "y") -> None:
    """Takes everything off `axes` that carries no information.

    Args:
      axes: To be changed.
      grid: The axis whose values are read off: ``"x"``, ``"y"``, ``"both"`` or ``"none"``.
    """
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if grid in ("y", "both"):
        axes.grid(True, axis="y", color=GRID, linewidth=0.8)
        axes.spines["bottom"].set_visible(True)
        axes.spines["bottom"].set_color(GREY)
    if grid in ("x", "both"):
        axes.grid(True, axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED, pad=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=MUTED, size=9)


def label_metric(axes: Axes, metric: str, *, axis: str = "y", signed: bool = False) -> None:
    """Labels an axis with a metric and its unit, and writes shares in per cent."""
    from matplotlib.ticker import FuncFormatter

    share = is_share(metric)
    name = metric_title(metric)
    unit = " [points]" if signed and share else " [%]" if share else ""
    target = axes.yaxis if axis == "y" else axes.xaxis
    target.set_label_text(name + unit, parse_math=False)
    if share:
        sign = "+" if signed else ""
        text = FuncFormatter(lambda value, _: _trim(f"{100 * value:{sign}.2f}") if value or not signed else "0")
        target.set_major_formatter(text)


def whole_rounds(axes: Axes, first: int, last: int) -> None:
    """Sets the round axis: whole numbers, a little air at both ends."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    air = max(0.5, 0.02 * (last - first))
    axes.set_xlim(first - air, last + air)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Round")


def thousands(axes: Axes, *, axis: str) -> None:
    """Writes the ticks of an axis as whole numbers with thousands separated."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    target = axes.yaxis if axis == "y" else axes.xaxis
    target.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    target.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def key(axes: Axes, entries: Sequence[tuple[str, str]], *, marker: str = "s", longest: int = 18) -> None:
    """A one-line legend above the axes, for what can't be labelled directly.

    Args:
      axes: It stands above these.
      entries: Label and colour, in reading order.
      marker: Shape of the samples.
      longest: Labels are shortened to so many characters.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", marker=marker, markersize=7, color=color) for _, color in entries]
    # matplotlib leaves out labels that begin with an underscore; a class or a run may well be called so
    labels = [
        f" {label}" if label.startswith("_") else label for label in (shorten(label, longest) for label, _ in entries)
    ]
    fits = sum(len(label) + 5 for label in labels) <= _KEY_CHARACTERS
    columns = len(labels) if fits else max(1, _KEY_CHARACTERS // (max(len(label) for label in labels) + 5))
    legend = axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0.2,
        handletextpad=0.1,
        columnspacing=1.4,
        borderaxespad=0.3,
    )
    legend.set_in_layout(True)


def spread_labels(heights: Sequence[float], gap: float) -> list[float]:
    """Moves label heights apart until neighbours are `gap` apart, keeping their order.

    >>> spread_labels([0.0, 0.0, 5.0], 1.0)
    [-0.5, 0.5, 5.0]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    groups: list[tuple[float, list[int]]] = []  # centre, members
    for index in order:
        groups.append((heights[index], [index]))
        while len(groups) > 1:
            (low, below), (high, above) = groups[-2:]
            if high - low >= gap * (len(below) + len(above)) / 2:
                break
            size = len(below) + len(above)
            groups[-2:] = [((low * len(below) + high * len(above)) / size, below + above)]
    placed = [0.0] * len(heights)
    for centre, members in groups:
        for position, index in enumerate(members):
            placed[index] = centre + gap * (position - (len(members) - 1) / 2)
    return placed


def metric_title(metric: str) -> str:
    """A metric's name as it begins a sentence.

    >>> metric_title("balanced_accuracy"), metric_title("auc"), metric_title("f1")
    ('Balanced accuracy', 'AUC', 'F1')
    """
    words = metric.replace("_", " ").strip()
    if words.lower() in ("auc", "rmse", "mae", "mse", "mape", "nll", "r2", "f1"):
        return words.upper()
    return words[:1].upper() + words[1:]


def shorten(text: str, length: int) -> str:
    """`text` on one line and in at most `length` characters: its beginning and its end.

    >>> shorten("st-elsewhere-general-hospital", 16)
    'st-elsewh…spital'
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    tail = (length - 1) * 2 // 5
    return line[: length - 1 - tail] + "…" + line[len(line) - tail :]


def _trim(number: str) -> str:
    """The number without zeros at the end of its decimals."""
    return (number.rstrip("0").rstrip(".") if "." in number else number).replace("-", "−")
