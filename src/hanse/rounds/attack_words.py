"""What a simulated attack came to, in words, and who carried it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanse.attacks.members import Members
from hanse.core.units import format_metric, plural
from hanse.rounds.history import History, RunRecord


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


def hostile_clients(run: RunRecord) -> frozenset[str]:
    """Who attacked in a simulation; empty where all were honest, each round drew others, or it is not known.

    Draws at random are of all clients: where some never took part, so that their names are nowhere, nothing is said.

    >>> from hanse.rounds.history import RoundRecord
    >>> rounds = (RoundRecord(round=1, cohort=("a", "b")),)
    >>> job = {"seed": 1, "attack": {"use": "sign_flip", "members": {"clients": ["b"]}}}
    >>> given = {"model_sha256": "", "num_parameters": 1, "num_clients": 2, "job": job, "versions": {}}
    >>> run = RunRecord(name="x", status="finished", path="", rounds_planned=1, history=History(rounds=rounds), **given)
    >>> sorted(hostile_clients(run))
    ['b']

    Args:
      run: The run, with the complete job.
    """
    attack = run.job.get("attack")
    given = attack.get("members") if isinstance(attack, Mapping) else None
    if not isinstance(given, Mapping) or run.between_sites:
        return frozenset()
    told: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    who = Members(**told)
    known = {client for record in run.history.rounds for client in record.cohort}
    known |= {score.client for score in run.history.last_scores()}
    if who.clients:
        return frozenset(who.clients)
    seed = run.job.get("seed", 0)
    if who.each_round or len(known) != run.num_clients or not isinstance(seed, int):
        return frozenset()
    return frozenset(who.fixed(tuple(known), seed))
