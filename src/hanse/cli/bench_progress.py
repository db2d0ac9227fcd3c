"""How a robustness table fills, on the terminal: a live line, or a line for each row elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hanse.cli.progress import time_left
from hanse.core.units import format_metric, plural
from hanse.robustness.cells import Found
from hanse.robustness.plan import Place, Plan


class BenchProgress:
    """A watcher of a table; use it as a context manager, which restores the terminal.

    Args:
      plan: The table.
      console: Where to write; standard error where None is given.
      quiet: Show nothing at all.
    """

    def __init__(self, plan: Plan, *, console: Console | None = None, quiet: bool = False) -> None:
        self._last = plan.rules[-1].name
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._done = self._total = 0
        self._live: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> BenchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live[0].stop()

    def begun(self, done: int, total: int) -> None:
        """Says how much is there already."""
        self._done, self._total = done, total
        if self._quiet:
            return
        if done:
            self._say(f"{done:,} of {plural(total, 'cell')} are there already")
        if done < total and self._console.is_terminal and not self._console.is_dumb_terminal:
            progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24, complete_style="blue", finished_style="green"),
                TextColumn("{task.fields[note]}", style="cyan", markup=False),
                console=self._console,
            )
            self._live = progress, progress.add_task(f"{done:,}/{total:,} cells", total=total, completed=done, note="")
            progress.start()

    def ended(self, place: Place, found: Found, seconds_left: float) -> None:
        """Shows how far the table is, and says what failed."""
        self._done += 1
        if self._quiet:
            return
        count = f"{self._done:,}/{self._total:,} cells"
        left = time_left(seconds_left) if seconds_left > 0 else ""
        at = f"{place.partition} · {place.share:.0%} · {place.attack}"
        if found.status == "failed":
            self._say(f"failed  {at} · {place.rule}: {found.reason}")
        if self._live is not None:
            value = "" if found.accuracy is None else f" {format_metric('accuracy', found.accuracy)}"
            note = " · ".join(part for part in (left, f"{at} · {place.rule}{value}") if part)
            self._live[0].update(self._live[1], description=count, completed=self._done, note=note)
        elif place.rule == self._last:
            self._say(" · ".join(part for part in (count, at, left) if part))

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
