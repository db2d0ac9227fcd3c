"""`hanse runs`: the runs of a folder."""

from __future__ import annotations

from hanse.cli.options import RUNS, AsJson, Out


def runs(out: Out = RUNS, json: AsJson = False) -> None:
    """List the runs of a folder."""
    from hanse.cli.as_json import print_json, run_as_json
    from hanse.rounds.run_folder import list_runs, read_run

    records = [read_run(folder) for folder in list_runs(out)]
    if json:
        print_json([run_as_json(record, brief=True) for record in records])
        return
    from rich.console import Console

    from hanse.cli.tables import runs_table

    Console().print(runs_table(records))
