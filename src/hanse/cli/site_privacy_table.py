"""What runs have cost a site's clients, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hanse.federation.client.site_spending import Spending


def site_privacy_table(spent: Sequence[Spending]) -> RenderableType:
    """A line for every data set, requester and budget."""
    if not spent:
        return Text("nothing has left this site yet that had to be charged", style="dim")
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for head in ("data", "each", "asked by"):
        table.add_column(head, overflow="fold", min_width=6)
    for head in ("runs", "ε", "of", "at δ"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("most", overflow="fold", min_width=4)
    for one in spent:
        over = one.budget is not None and one.epsilon > one.budget
        table.add_row(
            one.dataset,
            one.unit,
            "all" if one.requester == "*" else one.requester or "someone unnamed",
            f"{one.runs:,}",
            Text("∞" if math.isinf(one.epsilon) else f"{one.epsilon:.4f}", style="red" if over else ""),
            "–" if one.budget is None else f"{one.budget:g}",
            f"{one.delta:g}",
            one.client,
        )
    notes = ["ε is that of the client that has paid most; each has an account of its own."]
    if any(one.trusted for one in spent):
        notes.append("Some noise was the coordinator's to add, and it is trusted to have added it.")
    if any(one.unit == "nobody" for one in spent):
        notes.append("Runs that protect nobody promised nothing, and count for no budget.")
    return Group(table, Text(" ".join(notes), style="dim"))
