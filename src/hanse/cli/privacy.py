"""`hanse privacy`: what a run has spent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hanse.cli.options import RUNS, AsJson, Out, RunName


def privacy(
    run: RunName,
    out: Out = RUNS,
    delta: Annotated[float | None, typer.Option("--delta", help="The delta at which epsilon is told.")] = None,
    json: AsJson = False,
) -> None:
    """Show what privacy a run has spent, round by round."""
    from hanse.rounds.privacy.spending import spent_by_round
    from hanse.rounds.run_folder import find_run, read_run

    folder = find_run(run, out)
    record = read_run(folder)
    account = spent_by_round(folder, record.name, record.job, delta=delta)
    if json:
        from hanse.cli.as_json import print_json

        print_json(_plain(account))
        return
    from rich.console import Console

    from hanse.cli.privacy_table import privacy_table

    Console().print(privacy_table(account))


def _plain(account: Any) -> dict[str, Any]:
    return {
        "unit": account.unit,
        "budget": None if account.budget is None else vars(account.budget),
        "delta": account.delta,
        "releases": account.releases,
        "rounds": [
            {"round": number, "epsilon": spent.epsilon, "method": spent.method, "neighbours": spent.neighbours}
            for number, spent in account.by_round.items()
        ],
    }
