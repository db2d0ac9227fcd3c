"""Round records as JSON values, as every journal writes them, and what of them a history holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hanse.core.judged_round import Verdict
from hanse.rounds.history import ClientScore, ClientTraining, FailureRecord, History, LateRecord, Objective, RoundRecord
from hanse.rounds.standouts import Tally


def record_to_json(record: RoundRecord) -> dict[str, Any]:
    """The record as values that JSON knows, but for NaN and infinities among its metrics."""
    # not dataclasses.asdict, which copies every string of a cohort for itself
    plain = dict(vars(record))
    for name in ("failures", "late", "clients", "personal_clients", "trained", "verdicts"):
        plain[name] = [dict(vars(item)) for item in plain[name]]
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in plain.items()}


def record_from_json(values: Mapping[str, Any]) -> RoundRecord:
    """Read what `record_to_json` returned, also where an earlier Hanse did.

    >>> record = RoundRecord(round=3, cohort=("a", "b"), train={"loss": 0.5})
    >>> record_from_json(record_to_json(record)) == record
    True
    """
    plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    plain["failures"] = tuple(FailureRecord(**failure) for failure in values["failures"])
    plain["late"] = tuple(LateRecord(**late) for late in values.get("late", ()))
    for name in ("clients", "personal_clients"):
        plain[name] = tuple(ClientScore(**score) for score in values.get(name, ()))
    plain["trained"] = tuple(ClientTraining(**told) for told in values.get("trained", ()))
    plain["verdicts"] = tuple(Verdict(**verdict) for verdict in values.get("verdicts", ()))
    return RoundRecord(**plain)


def scores_to_json(scores: Sequence[ClientScore]) -> dict[str, Any]:
    """What clients scored, by columns; None where a client has no such metric."""
    names = dict.fromkeys(name for score in scores for name in score.metrics)
    return {
        "client": [score.client for score in scores],
        "num_examples": [score.num_examples for score in scores],
        **({"group": [score.group for score in scores]} if any(score.group for score in scores) else {}),
        "metrics": {name: [score.metrics.get(name) for score in scores] for name in names},
    }


def scores_from_json(values: Mapping[str, Any]) -> tuple[ClientScore, ...]:
    """Read what `scores_to_json` returned.

    >>> scores = (ClientScore(client="a", num_examples=2, metrics={"loss": 0.5}),)
    >>> scores_from_json(scores_to_json(scores)) == scores
    True
    """
    columns = values["metrics"]
    groups = values.get("group") or [""] * len(values["client"])
    return tuple(
        ClientScore(
            client=client,
            num_examples=count,
            metrics={name: column[i] for name, column in columns.items() if column[i] is not None},
            group=group,
        )
        for i, (client, count, group) in enumerate(zip(values["client"], values["num_examples"], groups, strict=True))
    )


def history_of(records: Iterable[RoundRecord], objective: Objective) -> History:
    """The history that records make, with what all their verdicts come to; see `gathered`.

    Args:
      records: In order; each is looked at once.
      objective: The run's.
    """
    tally = Tally()

    def counted() -> Iterator[RoundRecord]:
        for record in records:
            tally.add(record.round, record.verdicts)
            yield record

    rounds = gathered(counted())
    return History(rounds=rounds, objective=objective, standings=tally.standings())


def gathered(records: Iterable[RoundRecord]) -> tuple[RoundRecord, ...]:
    """The records of a `History`: what each client scored is kept of the newest round that has any, and of no other;
    so are verdicts.

    Clients' names are held once, and so are a cohort and groups that stay the same: memory grows with the rounds, and
    with the clients, and not with one times the other.
    """
    found: list[RoundRecord] = []
    scored: int | None = None
    judged: int | None = None
    names: dict[str, str] = {}
    for record in records:
        if record.clients:
            if scored is not None:
                found[scored] = replace(found[scored], clients=(), personal_clients=())
            scored = len(found)
        if record.verdicts:
            if judged is not None:
                found[judged] = replace(found[judged], verdicts=())
            judged = len(found)
        if found and record.cohort == found[-1].cohort:
            cohort = found[-1].cohort
        else:
            cohort = tuple(names.setdefault(client, client) for client in record.cohort)
        groups = tuple(names.setdefault(group, group) for group in record.groups)
        if found and groups == found[-1].groups:
            groups = found[-1].groups
        seconds = {names.setdefault(client, client): value for client, value in record.client_seconds.items()}
        found.append(replace(record, cohort=cohort, client_seconds=seconds, groups=groups))
    return tuple(found)
