"""What a simulated attack came to, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanse.core.units import format_metric, plural
from hanse.rounds.history import History


def attack_in_words(job: Mapping[str, Any], history: History) -> str:
    """Who attacked and how often the backdoor works; empty where nothing was simulated.

    >>> from hanse.rounds.history import RoundRecord
    >>> rounds = (RoundRecord(round=1, attack={"members": 2.0}), RoundRecord(round=2, attack={"members": 3.0}))
    >>> attack_in_words({"attack": {"use": "sign_flip"}}, History(rounds=rounds))
    'sign_flip, simulated; 2 to 3 hostile clients in a round'

    Args:
      job: The complete job.
      history: The run's.
    """
    told = job.get("attack")
    if not isinstance(told, Mapping) or "use" not in told:
        return ""
    members = [int(record.attack["members"]) for record in history.rounds if "members" in record.attack]
    who = ""
    if members:
        least, most = min(members), max(members)
        number = plural(most, "hostile client") if least == most else f"{least} to {most} hostile clients"
        who = f"; {number} in a round"
    success = next((r.attack["success"] for r in reversed(history.rounds) if "success" in r.attack), None)
    worked = "" if success is None else f"; its trigger works on {format_metric('accuracy', success)} of examples"
    return f"{told['use']}, simulated{who}{worked}"
