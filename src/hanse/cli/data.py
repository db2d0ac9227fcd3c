"""`hanse data`: the known data sets, and who holds what under a partition."""

from __future__ import annotations

import typer

data = typer.Typer(help="Look at data sets, and at who holds what.", no_args_is_help=True, rich_markup_mode=None)
