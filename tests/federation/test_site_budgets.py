"""Privacy budgets at sites of a federation of real processes, which are killed on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hanse.federation.client.site_config import PrivacyTable
from hanse.federation.client.site_files import LEDGER, SECRET
from hanse.federation.client.site_ledger import Charged, scope_of
from hanse.federation.client.site_spending import spendings
from hanse.federation.user.fetch import fetch_run
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.privacy.run import LEDGER as RUN_LEDGER
from hanse.rounds.privacy.run import scope_of as scope_of_run
from hanse.rounds.privacy.spending import spent_by_round
from hanse.rounds.run_folder import read_run
from tests.federation.fleet import LIVE, Fleet, fleet
from tests.federation.test_end_to_end import JOB

pytestmark = pytest.mark.slow

ROUNDS = 3
LOCAL: dict[str, Any] = {
    **JOB,
    "rounds": ROUNDS,
    "task": {**JOB["task"], "preprocess": {"use": "standardize", "fit": "client"}},
    "strategy": {"use": "fedavg", "weighting": "uniform"},
    "evaluate": {"clients": "none"},
    "pipeline": {"stages": [{"use": "local_gaussian", "norm": 0.5, "noise_multiplier": 6.0}]},
    "privacy": {"delta": 1e-5},
}
MINE = {"north": ["client-0", "client-2"], "south": ["client-1", "client-3"]}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("budgets")
    with fleet(folder, {"north": ("--simulate", "1/2"), "south": ("--simulate", "2/2")}, running=False) as found:
        for site in MINE:
            with (folder / site / "site.toml").open("a") as file:
                file.write('\n[[privacy.budgets]]\nrequester = "each"\nepsilon = 4.0\ndelta = 1e-5\n')
            found.run_site(site)
        yield found


def charged(federation: Fleet, site: str, run: str) -> list[tuple[int, str]]:
    entries = PrivacyLedger(federation.folder / site / LEDGER, scope=scope_of("data", "client")).entries()
    found = [Charged.of(entry.key) for entry in entries]
    return sorted((charged.round, charged.client) for charged in found if charged.run == run)


def spent(federation: Fleet, site: str) -> float:
    (line,) = [
        line
        for line in spendings(federation.folder / site / LEDGER, PrivacyTable())
        if line.requester != "*" and line.unit == "client"
    ]
    return line.epsilon


def test_every_report_is_charged_once_whoever_is_killed_and_runs_compose(federation: Fleet, tmp_path: Path) -> None:
    # the site dies with answers that were charged and not sent
    federation.stop_site("south")
    federation.run_site("south", fault="hanse.federation.client.transfers:Transfers.send:3:before")
    run = federation.submit({**LOCAL, "seed": 1}, name="one")
    assert federation.user.run(run).status in LIVE, federation.user.run(run).reason
    federation.wait_killed(federation.sites["south"])
    federation.run_site("south")
    assert federation.wait(run).status == "finished", federation.logs()
    for site, clients in MINE.items():
        assert charged(federation, site, run) == [(n, c) for n in range(1, ROUNDS + 1) for c in clients]
    one = {site: spent(federation, site) for site in MINE}

    # the coordinator dies once a round has opened
    federation.coordinator.stop()
    federation.serve(fault="hanse.federation.server.database.work_book:DatabaseWorkBook.open_phase:4:after")
    run = federation.submit({**LOCAL, "seed": 2}, name="two")
    federation.wait_killed(federation.coordinator)
    federation.serve()
    assert federation.wait(run).status == "finished", federation.logs()
    for site, clients in MINE.items():
        assert charged(federation, site, run) == [(n, c) for n in range(1, ROUNDS + 1) for c in clients]
        assert one[site] < spent(federation, site) <= 4.0
        assert not list((federation.folder / site / "runs").glob(f"one/{SECRET}")), "the run has ended"
    told = fetch_run(federation.user, run, tmp_path)
    entries = PrivacyLedger(told / RUN_LEDGER, scope=scope_of_run(told.name)).entries()
    assert [(entry.key.round, entry.key.attempt) for entry in entries] == [(n, 0) for n in range(1, ROUNDS + 1)]
    assert spent_by_round(told, told.name, read_run(told).job).by_round[ROUNDS].epsilon > 0
    assert fetch_run(federation.user, run, tmp_path) == told, "once more adds nothing"

    # and now there is no room for a third
    card = federation.wait(federation.submit({**LOCAL, "seed": 3}, name="three"))
    assert card.status == "failed"
    assert "this site's privacy budget has no room for it" in card.reason
    card = federation.wait(federation.submit({**JOB, "seed": 3}, name="four"))
    assert card.status == "failed"
    assert "this site demands privacy of every job" in card.reason
    assert "secret" not in json.dumps(federation.user.export(run).model_dump())
