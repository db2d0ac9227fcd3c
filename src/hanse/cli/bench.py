"""`hanse bench`: what Hanse's own parts do against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanse.cli.options import AsJson, DataDir, Quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.robustness.cells import Found
    from hanse.robustness.plan import Place, Plan

bench = typer.Typer(
    help="Measure Hanse's own parts against each other.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@bench.callback()
def _help(ctx: typer.Context) -> None:
    """Measure Hanse's own parts against each other."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@bench.command("robustness")
def robustness(
    data: Annotated[str, typer.Option(help="digits, or mnist.")] = "digits",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the table.")] = Path("robustness"),
    rules: Annotated[
        str | None, typer.Option(help="Some, as krum,nearest_neighbours+krum.", show_default="all")
    ] = None,
    attacks: Annotated[str | None, typer.Option(help="Some, as sign_flip,backdoor.", show_default="all")] = None,
    shares: Annotated[str, typer.Option(help="Of the clients, that attack; a table each.")] = "0.2,0.4",
    partitions: Annotated[str, typer.Option(help="Who holds what; a table each.")] = "iid,dirichlet",
    rounds: Annotated[int | None, typer.Option(help="Of each run.", show_default="what suits the data")] = None,
    seed: Annotated[int, typer.Option(help="Of each run.")] = 0,
    workers: Annotated[int, typer.Option("--workers", "-w", help="Processes that each run's clients run in.")] = 1,
    quiet: Quiet = False,
    data_dir: DataDir = None,
    json: AsJson = False,
) -> None:
    """Run every attack against every rule, and draw a heat map. The same command goes on after a stop."""
    from hanse.cli.bench_progress import BenchProgress
    from hanse.robustness.page import write_page
    from hanse.robustness.plan import Wanted, make_plan
    from hanse.robustness.results import PAGE
    from hanse.robustness.table import Machine, fill_table

    wanted = Wanted(
        data=data,
        rules=None if rules is None else _names(rules),
        attacks=None if attacks is None else _names(attacks),
        shares=[_share(text) for text in _names(shares)],
        partitions=_names(partitions),
        rounds=rounds,
        seed=seed,
    )
    plan = make_plan(wanted)
    with BenchProgress(plan, quiet=quiet) as progress:
        found = fill_table(plan, out, Machine(workers=workers, data_dir=data_dir), progress)
    write_page(plan, found, out / PAGE)
    _tell(plan, found, out, quiet=quiet, json=json)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _share(text: str) -> float:
    from hanse.core.errors import SettingError

    try:
        return float(text)
    except ValueError:
        raise SettingError("--shares", f"`{text}` is no number", hint="for example: --shares 0.2,0.4") from None


def _tell(plan: Plan, found: Mapping[Place, Found], out: Path, *, quiet: bool, json: bool) -> None:
    from hanse.cli.as_json import print_json
    from hanse.robustness.findings import findings
    from hanse.robustness.results import PAGE, RESULTS

    if json:
        cells = [{**vars(place), **vars(cell)} for place, cell in found.items()]
        print_json({"path": str(out), "page": str(out / PAGE), "results": str(out / RESULTS), "cells": cells})
        return
    if quiet:
        typer.echo(str(out / PAGE))
        return
    for partition, share in plan.tables():
        own = findings(plan, found, partition, share)
        typer.echo(f"{own.title}\n" + "\n".join(f"  {sentence}" for sentence in own.sentences) + "\n")
    typer.echo(f"page     {out / PAGE}\nresults  {out / RESULTS}")
