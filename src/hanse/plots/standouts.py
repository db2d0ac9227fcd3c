"""Who stood out: each client's flags by round, and its mean scores."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hanse.core.units import plural
from hanse.plots.style import (
    BLUE,
    GREY,
    INK,
    MUTED,
    VERMILLION,
    clean,
    new_figure,
    shorten,
    whole_rounds,
)
from hanse.rounds.history import History
from hanse.rounds.standouts import Standing, judged, standouts_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MOST_CLIENTS = 60
"""So many clients get a row, the most conspicuous ones."""

MOST_LABELS = 14
"""So many of the clients that stood out are named beside their point, if there is room."""

_MOST_COLUMNS = 150
_SMALLEST = 1e-3  # a norm of 0 has no place on a log axis
_AXES = 400.0, 190.0  # about, in points
_CHARACTER = 5.4  # its width, likewise


def draw_standouts(history: History, *, hostile: Collection[str] = ()) -> Figure:
    """Draws a row for each client: a line where it took part, a block where it stood out, a dashed line in quarantine.

    The most conspicuous clients are on top; of very many rounds several share a place, and a flag in any of them shows.

    Args:
      history: Of a run whose aggregator judged single updates.
      hostile: Clients that are known to attack, which is said beside their names.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    standings = judged(history)
    shown = standings[:MOST_CLIENTS]
    told = standouts_in_words(standings)
    cut = f" · {plural(len(shown), 'client')} shown" if len(shown) < len(standings) else ""
    figure = new_figure(1.55 + 0.2 * max(3, len(shown)), title="Who stood out", subtitle=f"{told}{cut}")
    axes = figure.add_subplot()
    clean(axes, grid="none")
    first, last = _span(history)
    if not shown or last < first:
        axes.set_axis_off()
        return figure
    height = {one.client: len(shown) - 1 - row for row, one in enumerate(shown)}
    step = -(-(last - first + 1) // _MOST_COLUMNS)
    took_part = _took_part(history, height)
    for one in shown:
        row = height[one.client]
        _bars(axes, row, took_part[one.client], step, thickness=0.16, color=GREY, alpha=0.55, linewidth=0)
        _bars(axes, row, one.flagged, step, thickness=0.72, color=VERMILLION, linewidth=0)
        if one.left_out is not None and one.left_out < last:
            axes.plot([one.left_out + 0.5, last + 0.5], [row, row], color=MUTED, **_OUT)
    _key(axes, quarantine=any(one.left_out is not None for one in shown))
    axes.set_yticks(range(len(shown)), [_name(one.client, hostile) for one in reversed(shown)])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    whole_rounds(axes, first, last)
    return figure


def draw_scores(standings: Sequence[Standing]) -> Figure:
    """Draws each client's mean direction and mean norm: who stood out as a named diamond, everybody else as a dot.

    Norms are on a logarithmic axis; those below 1/1000 of the median's stand at its foot.

    Args:
      standings: All clients', the most conspicuous first.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    placed = {one.client: at for one in standings if (at := _place(one)) is not None}
    figure = new_figure(
        3.9, title="Mean direction and norm of each client's updates", subtitle="over the rounds that it took part in"
    )
    axes = figure.add_subplot()
    clean(axes, grid="both")
    if not placed:
        axes.set_axis_off()
        return figure
    axes.set_yscale("log")
    out = [one.client for one in standings if one.stood_out and one.client in placed]
    honest = [client for client in placed if client not in set(out)]
    for clients, look in ((honest, _PLAIN), (out, _FLAGGED)):
        axes.plot([placed[c][0] for c in clients], [placed[c][1] for c in clients], **look)
    axes.axvline(0, color=GREY, linewidth=1.2, zorder=1)
    axes.axhline(1, color=GREY, linewidth=1.2, zorder=1)
    low, high = (end(norm for _, norm in placed.values()) for end in (min, max))
    axes.set_ylim(min(low, 0.25) / 1.5, max(high, 4.0) * 1.5)
    left, right = (end(direction for direction, _ in placed.values()) for end in (min, max))
    axes.set_xlim(min(left, -0.1) - 0.06, max(right, 0.1) + 0.06)
    _name_norms(axes)
    axes.set_xlabel("Mean cosine to the median update")
    axes.set_ylabel("Mean norm, in median norms")
    _name_points(axes, out[:MOST_LABELS], placed)
    _points_key(axes, bool(out), bool(honest))
    return figure


_OUT: dict[str, Any] = {"linestyle": (0, (1.5, 2.5)), "linewidth": 1.2, "solid_capstyle": "butt"}
_PLAIN: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 6, "color": BLUE, "alpha": 0.75}
_FLAGGED: dict[str, Any] = {"linestyle": "none", "marker": "D", "markersize": 6.5, "color": VERMILLION, "zorder": 3}


def _name(client: str, hostile: Collection[str]) -> str:
    return f"{shorten(client, 22)} (hostile)" if client in hostile else shorten(client, 28)


def _span(history: History) -> tuple[int, int]:
    """The first and the last round that trained."""
    rounds = [record.round for record in history.rounds if record.round]
    return (min(rounds), max(rounds)) if rounds else (1, 0)


def _took_part(history: History, wanted: Mapping[str, int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {client: [] for client in wanted}
    for record in history.rounds:
        for client in {client for client, _ in record.accepted()} & wanted.keys():
            found[client].append(record.round)
    return found


def _bars(axes: Axes, row: int, rounds: Sequence[int], step: int, *, thickness: float, **look: Any) -> None:
    """Blocks over rounds, neighbours in one."""
    spans: list[tuple[float, float]] = []
    for column in sorted({(number - 1) // step for number in rounds}):
        start = column * step + 0.5
        if spans and spans[-1][0] + spans[-1][1] == start:
            spans[-1] = spans[-1][0], spans[-1][1] + step
        else:
            spans.append((start, step))
    if spans:
        axes.broken_barh(spans, (row - thickness / 2, thickness), **look)


def _key(axes: Axes, *, quarantine: bool) -> None:
    from matplotlib.lines import Line2D

    samples = [
        Line2D([], [], color=VERMILLION, linestyle="none", marker="s", markersize=7, label="stood out"),
        Line2D([], [], color=GREY, alpha=0.55, linewidth=2, label="took part"),
    ]
    samples += [Line2D([], [], color=MUTED, label="not asked any more", **_OUT)] if quarantine else []
    _legend(axes, samples)


def _points_key(axes: Axes, out: bool, honest: bool) -> None:
    from matplotlib.lines import Line2D

    samples = [Line2D([], [], label="stood out", **_FLAGGED)] if out else []
    samples += [Line2D([], [], label="did not", **_PLAIN)] if honest else []
    _legend(axes, samples)


def _legend(axes: Axes, samples: Sequence[Line2D]) -> None:
    legend = axes.legend(
        handles=list(samples),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(samples),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0.2,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.3,
    )
    legend.set_in_layout(True)


def _place(one: Standing) -> tuple[float, float] | None:
    """Where a client's point is; None where it has no finite scores."""
    direction, norm = one.means.get("direction", math.nan), one.means.get("norm", math.nan)
    return (direction, max(norm, _SMALLEST)) if math.isfinite(direction) and math.isfinite(norm) else None


def _name_norms(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{'≤ ' if value <= _SMALLEST else ''}{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _name_points(axes: Axes, named: Sequence[str], placed: Mapping[str, tuple[float, float]]) -> None:
    """Names beside their points, those that lie on each other together, as far as there is room."""
    to_axes = axes.transData + axes.transAxes.inverted()
    at = {}
    for client, point in placed.items():
        across, up = to_axes.transform(point)
        at[client] = float(across) * _AXES[0], float(up) * _AXES[1]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at.values()]
    for clients in _together(named, at):
        x, y = at[clients[0]]
        names = [shorten(client, 20) for client in clients[:3]]
        names += [plural(len(clients) - 3, "other")] if len(clients) > 3 else []
        text = ", ".join(names)
        width = _CHARACTER * len(text)
        beside = ((8, 0, "left", 8.0), (-8, 0, "right", -8 - width))
        for dx, dy, side, left in (*beside, (0, 12, "center", -width / 2), (0, -12, "center", -width / 2)):
            box = (x + left, y + dy - 5, x + left + width, y + dy + 5)
            inside = box[0] >= 0 and box[2] <= _AXES[0] and box[3] <= _AXES[1]
            if inside and not any(_overlap(box, other) for other in taken):
                axes.annotate(
                    text,
                    xy=placed[clients[0]],
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    size=9,
                    color=INK,
                )
                taken.append(box)
                break


def _together(named: Sequence[str], at: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    """Clients whose points can't be told apart."""
    groups: list[list[str]] = []
    for client in named:
        near = next((group for group in groups if math.dist(at[group[0]], at[client]) < 7), None)
        if near is None:
            groups.append([client])
        else:
            near.append(client)
    return groups


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
