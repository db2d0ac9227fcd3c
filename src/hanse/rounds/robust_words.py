"""Robust accuracy, in words."""

from __future__ import annotations

from hanse.core.units import format_metric
from hanse.rounds.history import History, RoundRecord


def robust_in_words(history: History) -> str:
    """What the newest model that was measured on moved inputs comes to; empty where none was.

    >>> record = RoundRecord(round=3, central={"accuracy": 0.9, "robust_accuracy": 0.5})
    >>> robust_in_words(History(rounds=(record,), objective=("accuracy", "max")))
    'robust accuracy 50.0 %, accuracy 90.0 %, on the test set after round 3'
    """
    name = f"robust_{history.objective[0]}"
    found: RoundRecord | None = next((r for r in reversed(history.rounds) if name in (r.central or {})), None)
    if found is None or found.central is None:
        return ""
    both = (name, history.objective[0])
    told = [f"{metric.replace('_', ' ')} {format_metric(metric, found.central.get(metric))}" for metric in both]
    return f"{', '.join(told)}, on the test set after round {found.round:,}"
