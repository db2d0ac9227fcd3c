"""The page of a robustness table: a heat map for each partition and share, in one HTML file that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.units import format_count, format_metric
from hanse.report.page_template import page_template
from hanse.robustness.cells import Found
from hanse.robustness.entries import MEAN, NONE, AttackEntry, attack_entries, chosen_rules
from hanse.robustness.findings import NEAR, SHUT, Findings, findings
from hanse.robustness.plan import Place, Plan
from hanse.robustness.results import safe_cells
from hanse.robustness.setups import PARTITIONS
from hanse.rounds.tensor_files import write_atomically

_WORST_LOSS = 0.3  # from here on a cell is as red as can be
_WORST_SUCCESS = 0.5
_PAST = 0.5  # heat of what is just not within the bound; below it cells are green


@dataclass(frozen=True, kw_only=True)
class _Cell:
    text: str
    heat: float | None = None
    below: str = ""
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class _Row:
    name: str
    cells: tuple[_Cell, ...]
    backdoor: bool
    proves_nothing: bool


def write_page(plan: Plan, found: Mapping[Place, Found], path: Path) -> Path:
    """Write the page of a full table; it appears as a whole or not at all, and the same cells give the same bytes.

    Raises:
      MissingExtraError: jinja2 is not installed.
      StorageError: It can't be written.
    """
    with safe_cells():
        write_atomically(path, render_page(plan, found).encode())
    return path


def render_page(plan: Plan, found: Mapping[Place, Found]) -> str:
    """The page as HTML text; raises `MissingExtraError` where jinja2 is not installed."""
    told = {table: findings(plan, found, *table) for table in plan.tables()}
    tables = [
        {
            "id": f"{partition}-{round(100 * share)}",
            "findings": own,
            "rows": _rows(plan, found, partition, share, own),
            "outcomes": _outcomes(own),
        }
        for (partition, share), own in told.items()
    ]
    return page_template("robustness.html.jinja", package="hanse.robustness").render(
        plan=plan,
        headline=_headline(list(told.values())),
        facts=_facts(plan, found),
        tables=tables,
        columns=[rule.name.rpartition("+") for rule in plan.rules],
        attacks=[(entry.name, _settings(entry.attack), _members(entry)) for entry in plan.attacks if entry.attack],
        rules=[(rule.name, _settings(rule.rule), rule.mixing or "–") for rule in plan.rules if rule.rule],
        near=f"{100 * NEAR:g} points",
        shut=f"{100 * SHUT:g} %",
        command=_command(plan),
    )


def heat(entry: AttackEntry, found: Found, reference: float) -> float:
    """How bad a cell is, in [0, 1]: at most ½ where it survives, and 1 for 30 points lost or half of the inputs let in.

    >>> heat(AttackEntry(name="none", attack={}), Found(status="ran", accuracy=0.9), 0.9)
    0.0
    """
    if found.accuracy is None:
        return 1.0
    loss = _scaled(reference - found.accuracy, NEAR, _WORST_LOSS)
    return max(loss, _scaled(found.success or 0.0, SHUT, _WORST_SUCCESS)) if entry.backdoor else loss


def _scaled(value: float, bound: float, worst: float) -> float:
    if value <= bound + 1e-9:
        return max(0.0, value) / bound * _PAST / 2
    return min(1.0, _PAST + (1 - _PAST) * (value - bound) / (worst - bound))


def _rows(plan: Plan, found: Mapping[Place, Found], partition: str, share: float, own: Findings) -> list[_Row]:
    nothing = {row.attack for row in own.rows if row.proves_nothing}
    return [
        _Row(
            name=entry.name if entry.attack else "no attack",
            cells=tuple(
                _cell(
                    entry,
                    rule.name,
                    found[Place(partition=partition, share=share, attack=entry.name, rule=rule.name)],
                    own.reference,
                )
                for rule in plan.rules
            ),
            backdoor=entry.backdoor,
            proves_nothing=entry.name in nothing,
        )
        for entry in plan.attacks
    ]


def _cell(entry: AttackEntry, rule: str, found: Found, reference: float | None) -> _Cell:
    if found.status == "not run":
        return _Cell(text="—", title=f"{rule} is not run: {found.reason}")
    if found.accuracy is None:
        return _Cell(text="failed", heat=1.0, title=f"{rule} under {entry.name}: {found.reason}")
    title = f"{rule} under {entry.name}: accuracy {format_metric('accuracy', found.accuracy)}"
    below = ""
    if found.success is not None:
        below = f"{100 * found.success:.1f}"
        title += f", backdoor {format_metric('accuracy', found.success)}"
    own = None if reference is None else round(heat(entry, found, reference), 3)
    return _Cell(text=f"{100 * found.accuracy:.1f}", heat=own, below=below, title=title)


def _outcomes(own: Findings) -> list[tuple[str, bool, str, str]]:
    return [
        (
            row.attack,
            row.proves_nothing,
            ", ".join(row.survivors) or "nobody",
            ", ".join(row.refused) or "–",
        )
        for row in own.rows
    ]


def _headline(told: list[Findings]) -> str:
    first = told[0]
    if first.reference is None:
        return first.sentences[0]
    broken = sum(not row.proves_nothing for row in first.rows)
    return (
        f"With {first.title}, plain mean falls under {broken} of {len(first.rows)} attacks, from "
        f"{format_metric('accuracy', first.reference)} without one."
    )


def _facts(plan: Plan, found: Mapping[Place, Found]) -> list[tuple[str, str]]:
    count = {status: sum(cell.status == status for cell in found.values()) for status in ("ran", "failed", "not run")}
    return [
        ("Data", plan.data),
        ("Clients", format_count(plan.setup.clients)),
        ("Rounds", format_count(plan.rounds)),
        ("Seed", str(plan.seed)),
        ("Runs", format_count(count["ran"] + count["failed"])),
        ("Failed", format_count(count["failed"])),
        ("Not run", format_count(count["not run"])),
    ]


def _settings(table: Mapping[str, Any]) -> str:
    named = ", ".join(f"{key} = {value}" for key, value in table.items() if key != "use")
    return f"{table['use']}: {named or 'as it comes'}"


def _members(entry: AttackEntry) -> str:
    return "the share of the clients" if entry.count is None else f"{entry.count}"


def _command(plan: Plan) -> str:
    """What fills this table; options that say what they would be without are left out."""
    rules = [rule.name for rule in plan.rules]
    attacks = [entry.name for entry in plan.attacks]
    given = {
        "--data": (plan.data, "digits"),
        "--rules": (",".join(rules[1:]) or MEAN, ",".join(rule.name for rule in chosen_rules(None)[1:])),
        "--attacks": (",".join(attacks[1:]) or NONE, ",".join(attack_entries(plan.setup.trigger))),
        "--shares": (",".join(f"{share:g}" for share in plan.shares), "0.2,0.4"),
        "--partitions": (",".join(plan.partitions), ",".join(PARTITIONS)),
        "--rounds": (str(plan.rounds), str(plan.setup.rounds)),
        "--seed": (str(plan.seed), "0"),
    }
    words = [word for option, (own, usual) in given.items() if own != usual for word in (option, own)]
    return shlex.join(["hanse", "bench", "robustness", *words])
