"""`hanse show`: what a run found."""

from __future__ import annotations

from hanse.cli.options import RUNS, AsJson, Out, RunName


def show(run: RunName, out: Out = RUNS, json: AsJson = False) -> None:
    """Show what a run found."""
    from hanse.cli.as_json import print_json, run_as_json
    from hanse.rounds.run_folder import find_run, read_run

    record = read_run(find_run(run, out))
    if json:
        print_json(run_as_json(record))
        return
    from rich.console import Console

    from hanse.cli.tables import run_summary
    from hanse.rounds.privacy.spending import account_of

    Console().print(run_summary(record, privacy=account_of(record)))
