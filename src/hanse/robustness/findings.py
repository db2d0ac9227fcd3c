"""What a robustness table says, in sentences: which rule survives which attack, and which attacks prove nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hanse.core.units import format_metric
from hanse.robustness.cells import Found
from hanse.robustness.entries import MEAN, NONE, AttackEntry
from hanse.robustness.plan import Place, Plan

NEAR = 0.03
"""How much accuracy may be lost against the plain mean without an attack: in shares of the examples."""

SHUT = 0.05
"""A backdoor that succeeds in no larger share of the examples is shut."""

PARTITION_WORDS = {"iid": "IID", "dirichlet": "label skew"}
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of an attack.

    Args:
      attack: Its name.
      mean: What plain mean comes to.
      proves_nothing: Whether plain mean survives it.
      survivors: Names of the other rules that do.
      refused: Names of the rules that do not run with so many attackers.
    """

    attack: str
    mean: Found
    proves_nothing: bool
    survivors: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What one table says.

    Args:
      title: Which table.
      reference: Accuracy of the plain mean without an attack; None where that run failed.
      rows: By attack, in the table's order.
      sentences: In words.
    """

    title: str
    reference: float | None
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]


def title_of(plan: Plan, partition: str, share: float) -> str:
    """A table's heading."""
    skew = "" if partition == "iid" else f", Dir({plan.setup.alpha:g})"
    return f"{share:.0%} attackers, {PARTITION_WORDS.get(partition, partition)}{skew}".replace("%", " %")


def survives(entry: AttackEntry, found: Found, reference: float) -> bool:
    """Whether a cell keeps its accuracy, within `NEAR` of the reference, and its backdoor shut."""
    if found.accuracy is None:
        return False
    shut = not entry.backdoor or (found.success is not None and found.success <= SHUT + _ROUNDING)
    return shut and found.accuracy >= reference - NEAR - _ROUNDING


def findings(plan: Plan, found: Mapping[Place, Found], partition: str, share: float) -> Findings:
    """What the table of a partition and a share says."""

    def cell(attack: str, rule: str) -> Found:
        return found[Place(partition=partition, share=share, attack=attack, rule=rule)]

    title, reference = title_of(plan, partition, share), cell(NONE, MEAN).accuracy
    if reference is None:
        failed = f"Plain mean did not come to its end without an attack: {cell(NONE, MEAN).reason}."
        return Findings(title=title, reference=None, rows=(), sentences=(failed,))
    others = [rule.name for rule in plan.rules if rule.name != MEAN]
    rows = []
    for entry in plan.attacks:
        if entry.name == NONE:
            continue
        mean = cell(entry.name, MEAN)
        rows.append(
            Row(
                attack=entry.name,
                mean=mean,
                proves_nothing=survives(entry, mean, reference),
                survivors=tuple(name for name in others if survives(entry, cell(entry.name, name), reference)),
                refused=tuple(name for name in others if cell(entry.name, name).status == "not run"),
            )
        )
    weak = {name: own for name in others if _weak(own := cell(NONE, name), reference)}
    sentences = (*_on_mean(rows, reference), *_on_rules(rows, others, weak))
    return Findings(title=title, reference=reference, rows=tuple(rows), sentences=sentences)


def _weak(found: Found, reference: float) -> bool:
    return found.status != "not run" and (found.accuracy is None or found.accuracy < reference - NEAR - _ROUNDING)


def _on_mean(rows: Sequence[Row], reference: float) -> list[str]:
    head = f"Without an attack, plain mean reaches {format_metric('accuracy', reference)}."
    broken = [f"{row.attack} ({outcome(row.mean)})" for row in rows if not row.proves_nothing]
    nothing = [row.attack for row in rows if row.proves_nothing]
    found = [head]
    if broken:
        found.append(f"It does not survive {listed(broken)}.")
    if nothing:
        found.append(
            f"An attack that does nothing proves nothing: plain mean survives {listed(nothing)}, so that another rule "
            "does, too, says little."
        )
    return found


def _on_rules(rows: Sequence[Row], others: Sequence[str], weak: Mapping[str, Found]) -> list[str]:
    found = []
    tests = [row for row in rows if not row.proves_nothing]
    if tests and others:
        every = [name for name in others if all(name in row.survivors for row in tests)]
        if every:
            found.append(f"What plain mean does not survive, {listed(every)} do{'es' * (len(every) == 1)}.")
        else:
            found.append("No rule survives everything that plain mean does not.")
        lost = [row.attack for row in tests if not row.survivors]
        if lost:
            found.append(f"No rule here survives {listed(lost)}.")
    if weak:
        told = [f"{name} ({outcome(own)})" for name, own in weak.items()]
        found.append(f"Without any attack, more than {_points(NEAR)} are lost by {listed(told)}.")
    return found


def outcome(found: Found) -> str:
    """A cell in words.

    >>> outcome(Found(status="ran", accuracy=0.912, success=0.5))
    '91.2 %, backdoor 50.0 %'
    """
    if found.status != "ran":
        return found.status
    text = format_metric("accuracy", found.accuracy)
    return text if found.success is None else f"{text}, backdoor {format_metric('accuracy', found.success)}"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    words = list(names)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _points(share: float) -> str:
    return f"{100 * share:g} points"
