"""`hanse report`: write the HTML report of a run anew."""

from __future__ import annotations

import typer

from hanse.cli.options import RUNS, Out, RunName


def report(run: RunName, out: Out = RUNS) -> None:
    """Write the HTML report of a run, and print its path."""
    from hanse.cli.finish import write_run_report
    from hanse.rounds.run_folder import find_run

    typer.echo(str(write_run_report(find_run(run, out))))
