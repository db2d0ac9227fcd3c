"""`hanse compare`: several runs side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from hanse.cli.options import RUNS, AsJson, Out


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Names or folders of runs.")],
    out: Out = RUNS,
    json: AsJson = False,
) -> None:
    """Show several runs side by side, and where their jobs differ."""
    from hanse.cli.as_json import print_json, run_as_json
    from hanse.core.errors import JobError
    from hanse.rounds.run_folder import find_run, read_run

    if len(runs) < 2:
        raise JobError(f"one run, `{runs[0]}`, can't be compared", hint="name two or more; list them with: hanse runs")
    records = [read_run(find_run(run, out)) for run in runs]
    if json:
        print_json([run_as_json(record) for record in records])
        return
    from rich.console import Console

    from hanse.cli.differences import differences_table
    from hanse.cli.tables import compare_table

    console = Console()
    console.print(compare_table(records))
    console.print(differences_table(records))
