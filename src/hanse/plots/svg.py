"""A figure as SVG that can stand in an HTML page next to others."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from hanse.plots.style import COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Inter, 'Helvetica Neue', Arial, sans-serif"
"""Families the page may choose from; all are narrower than the font that the layout was made with."""

_NUMBERS = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform", "points", "viewBox")
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_FAMILY = re.compile(r"'DejaVu Sans'")
_VARIABLES = {color: f"var(--plot-{name}, {color})" for name, color in COLORS.items()}
_COLOR = re.compile("|".join(re.escape(color) for color in _VARIABLES))


def to_svg(figure: Figure, name: str, *, label: str, cut: float = 0.0) -> str:
    """The figure as an inline ``<svg>`` element.

    The same figure gives the same text. Text stays text, so that it can be searched and
    read aloud; palette colours are written as CSS variables ``--plot-<name>``, so that a
    page can restyle them; every id begins with `name`, so that several can share a page.

    Args:
      figure: Any matplotlib figure.
      name: Unique in the page; letters, digits and ``-``.
      label: What a screen reader says in place of the picture.
      cut: Points to take off the top.
    """
    from hanse.plots.picture import house_settings

    buffer = io.BytesIO()
    with house_settings(**{"svg.fonttype": "none", "svg.hashsalt": "hanse", "svg.image_inline": True}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - it was written two lines above
    _drop(root, ("metadata", "style", "title"))
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _value(_local(key), value, name) for key, value in element.attrib.items()}
    for unwanted in ("version", "width", "height"):
        root.attrib.pop(unwanted, None)
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    root.attrib["viewBox"] = f"{left:g} {top + cut:g} {width:g} {height - cut:g}"
    root.attrib |= {"class": "plot", "role": "img", "aria-label": label}
    # in place of matplotlib's own rule for every element, which would apply to the whole page
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    return ET.tostring(root, encoding="unicode")


def _local(tag: str) -> str:
    """A name without its namespace: HTML needs none, and the page then names no address at all."""
    return tag.rpartition("}")[2]


def _drop(parent: ET.Element, tags: tuple[str, ...]) -> None:
    for child in list(parent):
        if _local(child.tag) in tags:
            parent.remove(child)
        else:
            _drop(child, tags)


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key in _NUMBERS:
        return _DECIMALS.sub(lambda match: f"{float(match[0]):.2f}", value)
    value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    if key == "style":
        value = _FAMILY.sub(FONTS, value)
        value = _COLOR.sub(lambda match: _VARIABLES[match[0]], value)
    return value
