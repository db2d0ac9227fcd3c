"""What a section of a report holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table; the first column names the row, all others are figures unless named in `words`.

    Args:
      caption: What it holds.
      head: Names of the columns.
      rows: One text for each column.
      words: Columns that hold words, set flush left.
      opened: Shown at once, and not only when asked for.
      strong: Cells (row, column) that stand out.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})
    opened: bool = False
    strong: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading and what stands under it.

    Args:
      name: Unique in the page; letters and ``-``.
      title: The heading.
      lead: The sentence that matters, or empty.
      text: Further paragraphs.
      plots: SVG elements, safe to insert as they are.
      tables: The same figures to read off.
    """

    name: str
    title: str
    lead: str = ""
    text: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
