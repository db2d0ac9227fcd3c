"""Draw the pictures of the README and the documentation from a finished run: `make pictures`.

Whoever changes the demo, the tables or the plots draws them again, so that they show what a reader will see.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from hanse.cli.tables import run_summary
from hanse.plots import draw_comparison, draw_curves
from hanse.rounds.history import RunRecord
from hanse.rounds.run_folder import read_run

IMAGES = Path("docs/images")
WIDTH = 84  # characters
MOST_BYTES = 200_000


def main(folder: Path) -> None:
    """Draw everything that shows a run.

    Args:
      folder: The run folder of the demo, with its comparison.
    """
    record = replace(read_run(folder), path=f"runs/{folder.name}")  # where `make demo` keeps it
    assert record.comparison is not None, f"{folder} was run without baselines"
    (IMAGES / "terminal.svg").write_text(terminal(record), encoding="utf-8")
    save(draw_comparison(record.comparison), IMAGES / "comparison.png")
    save(draw_curves(record.history), IMAGES / "curves.png")


def terminal(record: RunRecord) -> str:
    """What `hanse run` says at the end, as SVG, without fonts from elsewhere."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ hanse run examples/hospitals/job.toml\n", style="bold"))
    console.print(run_summary(record))
    console.print(f"report      {record.path}/report.html", markup=False, highlight=False)
    fonts = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", fonts).replace("font-family: arial", "font-family: sans-serif")
    svg = console.export_svg(title="hanse", code_format=form, unique_id="hanse")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of few colours."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", bbox_inches="tight")
    picture = Image.open(buffer).convert("RGB").quantize(colors=96, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    size = path.stat().st_size
    assert size <= MOST_BYTES, f"{path} has {size} bytes"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
