"""What stands at the end of a run: the report, the table, and where everything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hanse.data.federated import FederatedDataset
from hanse.data.summary import PartitionSummary, summarise
from hanse.plots.partition import Holdings
from hanse.report.html import write_report
from hanse.rounds.journal import FileJournal
from hanse.rounds.privacy.spending import account_of
from hanse.rounds.run_folder import REPORT, read_run

HOLDINGS = "holdings"
"""The fact in the journal that says who holds what, so that a report needs no data."""


def write_run_report(folder: Path) -> Path:
    """Write the report of a run into its folder.

    Raises:
      MissingExtraError: matplotlib or jinja2 is not installed.
      StorageError: The folder can't be read or written.
    """
    journal = FileJournal(folder)
    try:
        values = journal.fact(HOLDINGS)
    finally:
        journal.close()
    partition = None if values is None else _holdings_from(values)
    record = read_run(folder)
    return write_report(record, folder / REPORT, partition=partition, privacy=account_of(record))


def holdings_as_values(dataset: FederatedDataset) -> dict[str, Any]:
    """Who holds what, as plain values for the journal; a sample of the clients where they are many."""
    found = holdings(summarise(dataset))
    return {
        "clients": list(found.clients),
        "counts": np.asarray(found.counts).tolist(),
        "classes": list(found.classes),
        "num_clients": len(dataset),
    }


def holdings(summary: PartitionSummary) -> Holdings:
    """A summary as what the plots take."""
    counts = summary.sizes if summary.class_counts is None else summary.class_counts
    return Holdings(
        clients=summary.clients,
        counts=counts,
        classes=() if summary.class_counts is None else summary.classes,
        num_clients=summary.num_clients,
    )


def _holdings_from(values: dict[str, Any]) -> Holdings:
    return Holdings(
        clients=tuple(values["clients"]),
        counts=np.array(values["counts"], dtype=np.int64),
        classes=tuple(values["classes"]),
        num_clients=values["num_clients"],
    )
