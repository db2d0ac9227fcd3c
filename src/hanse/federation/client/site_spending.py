"""What runs have cost a site's clients, for the people there: for every data set, requester and budget a line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hanse.federation.client.site_config import ALL, PrivacyTable
from hanse.federation.client.site_ledger import WITHOUT, Charged
from hanse.privacy.accountant import account
from hanse.privacy.events import Event
from hanse.privacy.ledger import LedgerEntry, PrivacyLedger, scopes_in
from hanse.rounds.privacy.settled import neighbours_by

DELTA = 1e-5
"""At which epsilon is told where no budget says."""


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What one requester's runs, or all runs together, have cost of one data set.

    Args:
      dataset: The data's name.
      unit: Who is protected; ``"nobody"`` for runs that promised nothing.
      requester: Whose runs; ``"*"`` for all together.
      runs: How many.
      charges: Updates that were charged, of all clients.
      client: Who has paid most.
      epsilon: What it has paid; infinite where nothing was promised.
      delta: At which that holds.
      budget: The budget's epsilon; None where there is none.
      trusted: Whether some of the noise was the coordinator's to add.
    """

    dataset: str
    unit: str
    requester: str
    runs: int
    charges: int
    client: str
    epsilon: float
    delta: float
    budget: float | None
    trusted: bool


def spendings(path: Path, table: PrivacyTable, *, delta: float = DELTA) -> list[Spending]:
    """What a site's ledger says, read and not changed.

    Args:
      path: The ledger; nothing was spent where there is none.
      table: `[privacy]` of the `site.toml`, with the budgets.
      delta: At which epsilon is told where no budget says.

    Raises:
      StorageError: It can't be read, or was tampered with.
      PrivacyError: What is in it can't be accounted for together.
    """
    if not path.is_file():
        return []
    found = []
    for scope in scopes_in(path):
        dataset, _, unit = scope.rpartition(" by ")
        entries = [
            (Charged.of(entry.key), entry)
            for entry in PrivacyLedger(path, scope=scope, neighbours=neighbours_by(unit)).entries()
        ]
        for requester in [ALL, *sorted({charged.requester for charged, _ in entries})]:
            mine = [(c, entry) for c, entry in entries if requester in (ALL, c.requester)]
            for budget_epsilon, at in _budgets(table, dataset, unit, requester) or [(None, delta)]:
                client, epsilon = _most(mine, at, unit)
                found.append(
                    Spending(
                        dataset=dataset,
                        unit=unit,
                        requester=requester,
                        runs=len({(charged.run, charged.secret) for charged, _ in mine}),
                        charges=len(mine),
                        client=client,
                        epsilon=epsilon,
                        delta=at or 0.0,
                        budget=budget_epsilon,
                        trusted=any(charged.noise_by == "coordinator" for charged, _ in mine) and unit != WITHOUT,
                    )
                )
    return found


def _budgets(table: PrivacyTable, dataset: str, unit: str, requester: str) -> list[tuple[float | None, float | None]]:
    return [
        (budget.epsilon, budget.delta)
        for budget in table.budgets
        if budget.covers(requester, dataset) and budget.unit == unit and (budget.requester == ALL) == (requester == ALL)
    ]


def _most(entries: Iterable[tuple[Charged, LedgerEntry]], delta: float | None, unit: str) -> tuple[str, float]:
    """The client that has paid most; those that have paid the same are accounted for once."""
    paid: dict[str, Counter[Event]] = {}
    for charged, entry in entries:
        paid.setdefault(charged.client, Counter())[entry.event] += 1
    known: dict[frozenset[tuple[Event, int]], float] = {}
    worst, most = "", -math.inf
    for client, events in paid.items():
        state = frozenset(events.items())
        if state not in known:
            known[state] = account(events, delta=delta, neighbours=neighbours_by(unit)).epsilon
        if known[state] > most:
            worst, most = client, known[state]
    return worst, most
