"""Who holds what: how many examples of which class are at which client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import DataError
from hanse.core.units import plural
from hanse.plots.style import BLUE, INK, MUTED, SERIES, clean, key, new_figure, shorten, thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 40
"""Up to so many clients each get a row with their name."""

MOST_COLORS = 8
"""Up to so many classes are told apart by colour; more by their place."""

MOST_CIRCLES = 24
"""Up to so many classes there is room for circles beside each other."""

_MOST_COLUMNS = 400


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """Who holds what, as plain arrays.

    Args:
      clients: Client ids, n of them.
      counts: Examples by client and class `[n, num_classes]`; or, where targets are numbers,
        by client alone `[n]`.
      classes: Names of the classes; empty where `counts` has one dimension.
      num_clients: All clients of the federation, where `clients` is a sample of them.

    Raises:
      DataError: the sizes do not fit each other.
    """

    clients: Sequence[str]
    counts: NDArray[np.integer[Any]]
    classes: Sequence[str] = field(default=())
    num_clients: int | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.counts)
        wanted = (len(self.clients), len(self.classes)) if len(shape) == 2 else (len(self.clients),)
        if shape != wanted:
            raise DataError(
                f"who holds what: counts have shape {list(shape)}; "
                f"{plural(len(self.clients), 'client')} and {len(self.classes):,} class names ask for {list(wanted)}",
                hint="give one row for each client and one column for each class",
            )

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Examples of each client `[n]`."""
        counts = np.asarray(self.counts, dtype=np.int64)
        return counts if counts.ndim == 1 else counts.sum(axis=1)


def draw_partition(holdings: Holdings) -> Figure:
    """Draws who holds what.

    Up to 40 clients and 8 classes: stacked bars. More classes: circles whose area is the
    number of examples, or, beyond 24, shaded cells. More clients: a map, one narrow column for each client (or for
    several alike, beyond 400), its shade the share of a class, clients' sizes above it.
    Where targets are numbers: sizes alone.

    Args:
      holdings: Counts by client and class.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    num_clients = len(holdings.clients)
    by_class = np.ndim(holdings.counts) == 2
    num_classes = len(holdings.classes)
    if not num_clients:
        return new_figure(1.2, title="Who holds what", subtitle="no clients")
    if num_clients > MOST_NAMED:
        height = 3.6 if not by_class else 2.6 + 0.19 * min(max(num_classes, 5), 30)
    else:
        height = 1.45 + 0.25 * max(2, num_clients)
    figure = new_figure(height, title="Who holds what", subtitle=_subtitle(holdings))
    if num_clients > MOST_NAMED and by_class:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(1.6, num_classes * 0.16)])
        _map(upper, lower, holdings)
    elif num_clients > MOST_NAMED:
        _sizes_curve(figure.add_subplot(), holdings)
    elif by_class and num_classes > MOST_CIRCLES:
        _cells(figure.add_subplot(), holdings)
    elif by_class and num_classes > MOST_COLORS:
        _circles(figure.add_subplot(), holdings)
    else:
        _bars(figure.add_subplot(), holdings)
    return figure


def _subtitle(holdings: Holdings) -> str:
    sizes = holdings.sizes
    parts = [f"{plural(int(sizes.sum()), 'example')} at {plural(len(sizes), 'client')}"]
    if holdings.num_clients is not None and holdings.num_clients > len(sizes):
        parts[0] += f", a sample of {holdings.num_clients:,}"
    if len(sizes) > 1:
        parts.append(f"smallest {sizes.min():,}, median {np.median(sizes):,.0f}, largest {sizes.max():,}")
    if empty := int((sizes == 0).sum()):
        parts.append(f"{plural(empty, 'client')} without any")
    return " · ".join(parts)


def _bars(axes: Axes, holdings: Holdings) -> None:
    clean(axes, grid="x")
    sizes = holdings.sizes
    rows = np.arange(len(sizes))[::-1]
    counts = np.asarray(holdings.counts, dtype=np.int64)
    start = np.zeros(len(sizes), dtype=np.int64)
    for index, column in enumerate(counts.T if counts.ndim == 2 else [counts]):
        label = f" {holdings.classes[index]}" if counts.ndim == 2 else " examples"
        # a white edge parts neighbours for those who can't tell the colours
        axes.barh(
            rows, column, left=start, height=0.72, color=SERIES[index], edgecolor="white", linewidth=0.6, label=label
        )
        start = start + column
    for row, size in zip(rows, sizes, strict=True):
        axes.annotate(
            f"{size:,}", xy=(size, row), xytext=(5, 0), textcoords="offset points", va="center", size=9, color=INK
        )
    _name_rows(axes, holdings, rows)
    axes.set_xlim(0, 1.09 * max(1, int(sizes.max())))
    thousands(axes, axis="x")
    axes.set_xlabel("Examples")
    if counts.ndim == 2:
        key(axes, [(name, SERIES[index]) for index, name in enumerate(holdings.classes)])


def _circles(axes: Axes, holdings: Holdings) -> None:
    clean(axes, grid="none")
    counts = np.asarray(holdings.counts, dtype=np.int64)
    rows = np.arange(len(counts))[::-1]
    widest = 72 * 0.9 * min(4.6 / counts.shape[1], 0.25)  # points, so that neighbours never touch
    row_of, column_of = np.nonzero(counts)
    area = (widest**2) * counts[row_of, column_of] / max(1, counts.max())
    axes.hlines(rows, -0.5, counts.shape[1] - 0.5, color=MUTED, linewidth=0.4, alpha=0.35, zorder=1)
    axes.scatter(column_of, rows[row_of], s=area, color=BLUE, linewidth=0, zorder=2)
    _name_rows(axes, holdings, rows, sizes=True)
    axes.set_xlim(-0.7, counts.shape[1] - 0.3)
    _name_classes(axes, holdings.classes)
    axes.set_xlabel(f"Class (largest circle: {plural(int(counts.max()), 'example')})")


def _cells(axes: Axes, holdings: Holdings) -> None:
    clean(axes, grid="none")
    counts = np.asarray(holdings.counts, dtype=np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(_shades(share), aspect="auto", origin="upper", interpolation="none")
    rows = np.arange(len(counts))
    _name_rows(axes, holdings, rows, sizes=True)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _name_classes(axes, holdings.classes)
    axes.set_xlabel(f"Class (stronger colour: larger share of a client's examples, up to {100 * share.max():.0f} %)")


def _map(upper: Axes, lower: Axes, holdings: Holdings) -> None:
    counts = np.asarray(holdings.counts, dtype=np.float64)
    order = _alike_together(counts)
    groups = np.array_split(order, min(len(order), _MOST_COLUMNS))
    columns = np.stack([counts[group].sum(axis=0) for group in groups])
    share = columns / np.maximum(columns.sum(axis=1, keepdims=True), 1)
    clean(upper)
    sizes = holdings.sizes[order]
    upper.fill_between(np.arange(len(sizes) + 1), np.append(sizes, sizes[-1]), step="post", color=BLUE, linewidth=0)
    thousands(upper, axis="y")
    upper.set_ylabel("Examples")
    upper.set_ylim(0)
    clean(lower, grid="none")
    extent = (0, len(order), -0.5, share.shape[1] - 0.5)
    lower.imshow(_shades(share.T), aspect="auto", origin="lower", extent=extent, interpolation="none")
    step = -(-len(holdings.classes) // 30)
    ticks = range(0, len(holdings.classes), step)
    lower.set_yticks(ticks, [shorten(holdings.classes[tick], 18) for tick in ticks])
    lower.tick_params(axis="y", labelcolor=INK)
    lower.set_ylabel("Class")
    lower.set_xlim(0, len(order))
    thousands(lower, axis="x")
    lower.set_xlabel("Clients, alike ones side by side (stronger colour: larger share of a client's examples)")


def _shades(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """An image `[rows, columns, 4]` whose opacity is the share: an empty cell takes the page's colour."""
    image = np.empty((*share.shape, 4))
    image[..., :3] = [int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    image[..., 3] = share / (share.max() or 1.0)
    return image


def _alike_together(counts: NDArray[np.float64]) -> NDArray[np.intp]:
    """Clients by their largest class, within it by its share: blocks instead of noise."""
    total = np.maximum(counts.sum(axis=1), 1)
    largest = counts.argmax(axis=1)
    share = counts[np.arange(len(counts)), largest] / total
    return np.lexsort((-share, largest))


def _sizes_curve(axes: Axes, holdings: Holdings) -> None:
    clean(axes)
    sizes = np.sort(holdings.sizes)[::-1]
    keep = np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), _MOST_COLUMNS)).round().astype(int))
    axes.fill_between(keep + 1, sizes[keep], step="mid", color=BLUE, linewidth=0)
    thousands(axes, axis="y")
    thousands(axes, axis="x")
    axes.set_xlim(1, len(sizes))
    axes.set_ylim(0)
    axes.set_ylabel("Examples")
    axes.set_xlabel("Clients, largest first")


def _name_rows(axes: Axes, holdings: Holdings, rows: NDArray[np.intp], *, sizes: bool = False) -> None:
    """Writes the clients' names at the left and, if asked, their sizes at the right."""
    for row, size in zip(rows, holdings.sizes, strict=True) if sizes else ():
        axes.annotate(
            f"{size:,}",
            xy=(1, row),
            xycoords=axes.get_yaxis_transform(),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            size=9,
            color=INK,
        )
    axes.set_yticks(rows, [shorten(client, 28) for client in holdings.clients])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.7, len(rows) - 0.3)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    step = -(-len(classes) // 30)
    ticks = list(range(0, len(classes), step))
    names = [shorten(classes[tick], 14) for tick in ticks]
    crowded = sum(len(name) + 2 for name in names) > 75
    axes.set_xticks(ticks, names, rotation=60 if crowded else 0, ha="right" if crowded else "center")
