"""`hanse data`: the known data sets, and who holds what under a partition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.options import AsJson, DataDir

data = typer.Typer(
    help="Look at data sets, and at who holds what.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@data.callback()
def _help(ctx: typer.Context) -> None:
    """Look at data sets, and at who holds what."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@data.command("list")
def list_sets(json: AsJson = False) -> None:
    """List the known data sets, and the ways to share one out."""
    from hanse.cli.catalogue import as_values, catalogue_tables

    if json:
        from hanse.cli.as_json import print_json

        print_json(as_values())
        return
    from rich.console import Console

    Console().print(catalogue_tables())


@data.command("show", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def show_set(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set, or a job file.")],
    partition: Annotated[str | None, typer.Option(help="How to share it out.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of the partition.")] = 0,
    picture: Annotated[
        Path | None, typer.Option(help="File for the picture, .png or .svg.", show_default="NAME-PARTITION.png")
    ] = None,
    data_dir: DataDir = None,
    json: AsJson = False,
) -> None:
    """Show a data set, and who holds what under a partition.

    Any further option is a setting of the data set or of the partitioner: --clients 20 --alpha 0.3.
    """
    from hanse.cli.data_show import look_at, parse_settings, print_view

    view = look_at(name, partition, parse_settings(ctx.args), seed=seed, data_dir=data_dir)
    if json:
        from hanse.cli.as_json import print_json

        print_json(view.as_values())
        return
    print_view(view, picture)
