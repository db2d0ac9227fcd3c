"""A matplotlib figure that shows itself in a notebook; imported only where a plot is drawn."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so a plot is the same on every machine
    "font.size": 9.0,
    "text.parse_math": False,  # a client may be called "$x$"
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "path.simplify": True,
}


class Picture(Figure):
    """A `matplotlib.figure.Figure`, drawn in the house style whatever the user's own settings.

    A bare `Figure` shows itself in a notebook only after `matplotlib.pyplot` has set up an
    inline backend; this one brings its own PNG, so nothing has to be imported or switched on.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draws everything; tick labels are made only now, so the style has to hold now."""
        with house_settings():
            for text in self.findobj(Text):
                text.set_parse_math(False)
            super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """PNG at twice the display's resolution, and the size to show it at, for notebooks."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=220, metadata={"Software": None})
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(width * 110), "height": round(height * 110)}


@contextmanager
def house_settings(**extra: Any) -> Iterator[None]:
    """Sets matplotlib's global settings for a while, and `extra` beside them."""
    settings: dict[Any, Any] = {**_SETTINGS, **extra}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # names in scripts that DejaVu lacks: a browser finds a font for them, and a PNG shows boxes
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield
