"""What verdicts come to over rounds, and that a history stays small where there are many of them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hanse.core.judged_round import Verdict
from hanse.core.params import Params
from hanse.rounds.attack_words import hostile_clients
from hanse.rounds.history import History, RoundRecord, RunRecord
from hanse.rounds.journal import FileJournal, Journal, MemoryJournal
from hanse.rounds.record_json import history_of, record_from_json, record_to_json
from hanse.rounds.standouts import Standing, Tally, judged, named_in_short, standouts_in_words
from hanse.strategies.state import ModelState

LOSS = ("loss", "min")
STATE = ModelState(Params.from_arrays({"w": np.arange(3, dtype=np.float32)}))


def verdict(
    client: str, norm: float = 1.0, reason: str = "", *, weight: float | None = None, out: bool = False
) -> Verdict:
    return Verdict(client=client, weight=weight, scores={"norm": norm, "flags": 7.0}, reason=reason, quarantined=out)


ROUNDS = (
    RoundRecord(round=0),
    RoundRecord(round=1, verdicts=(verdict("a", weight=3.0), verdict("b", 6.0, "is long (6)", weight=1.0))),
    RoundRecord(round=2, status="abandoned"),
    RoundRecord(
        round=3, verdicts=(verdict("a", 2.0, weight=1.0), verdict("b", 8.0, "is long (8)", weight=0.0, out=True))
    ),
    RoundRecord(round=4, verdicts=(verdict("a", 3.0, weight=2.0),)),
)


def test_verdicts_are_added_up() -> None:
    b, a = judged(History(rounds=ROUNDS))
    assert a == Standing(client="a", judged=3, means={"norm": 2.0}, weight=(0.75 + 1 + 1) / 3)
    assert b == Standing(
        client="b",
        judged=2,
        flagged=(1, 3),
        first_reason="is long (6)",
        last_reason="is long (8)",
        left_out=3,
        means={"norm": 7.0},
        weight=0.125,
    )
    assert b.reason == "is long (8)"
    assert replace(b, first_reason="points away").reason == "is long (8); at first: points away"
    assert judged(History(rounds=ROUNDS[:1])) == ()


def test_two_updates_of_one_client_in_a_round_are_one_flagged_round() -> None:
    tally = Tally()
    tally.add(5, [verdict("a", reason="is long"), verdict("a", reason="is long")])
    (found,) = tally.standings()
    assert (found.judged, found.flagged) == (2, (5,))


def test_no_share_of_nothing() -> None:
    tally = Tally()
    tally.add(1, [verdict("a", weight=0.0), verdict("b", weight=None)])
    assert [one.weight for one in tally.standings()] == [0.0, None]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_journals_keep_the_newest_verdicts_and_what_all_come_to(kind: str, tmp_path: Path) -> None:
    journal: Journal = MemoryJournal() if kind == "memory" else FileJournal(tmp_path)
    for one in ROUNDS:
        journal.commit(one, STATE, best_round=None)
    history = journal.history(LOSS)
    assert [len(one.verdicts) for one in history.rounds] == [0, 0, 0, 0, 1]
    assert judged(history) == judged(History(rounds=ROUNDS))
    if isinstance(journal, FileJournal):
        assert dict(journal.verdicts()) == {one.round: one.verdicts for one in ROUNDS if one.verdicts}
        journal.close()


def test_memory_does_not_grow_with_rounds_times_clients() -> None:
    def read(rounds: int) -> Iterator[RoundRecord]:
        for number in range(rounds):
            found = tuple(verdict(f"client-{i}", i / 7, weight=1 / 7) for i in range(100))
            yield record_from_json(json.loads(json.dumps(record_to_json(RoundRecord(round=number, verdicts=found)))))

    def peak(rounds: int) -> int:
        tracemalloc.start()
        try:
            assert len(history_of(read(rounds), LOSS).rounds) == rounds
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert (peak(110) - peak(10)) / 100 < 5_000  # bytes a round; a hundred verdicts take more than 40,000


def test_in_words() -> None:
    def standing(client: str, left_out: int | None = None, *, flagged: bool = True) -> Standing:
        reason = "is long (9); points away" if flagged else ""
        return Standing(
            client=client, judged=9, flagged=(2,) * flagged, last_reason=reason, left_out=left_out, means={"norm": 1.0}
        )

    few = [standing("a", 6), standing("b", 6), standing("c"), standing("d", flagged=False)]
    assert standouts_in_words(few) == "3 of 4 clients stood out; 2 are not asked any more since round 7"
    assert standouts_in_words(few[:2]).endswith("none of them is asked any more since round 7")
    assert standouts_in_words(few[2:]) == "1 of 2 clients stood out"
    assert standouts_in_words(few[3:]) == "None of 1 client stood out"
    later = [*few, standing("e", 9)]
    assert standouts_in_words(later).endswith("3 are not asked any more since round 7, the last of them since round 10")
    assert named_in_short(later) == (
        "a (is long), b (is long), c (is long) and 1 other; 3 not asked any more since round 7, the last of them since "
        "round 10"
    )
    assert named_in_short(few[3:]) == "none of 1 client"
    assert named_in_short([replace(few[0], means={})]) == ""


def test_who_attacked_is_known_where_all_names_are() -> None:
    def run(members: dict[str, object], *, clients: int = 4, sites: bool = False) -> RunRecord:
        record = RoundRecord(round=1, cohort=("a", "b", "c", "d"))
        return RunRecord(
            name="x",
            status="finished",
            path="",
            rounds_planned=1,
            history=History(rounds=(record,)),
            model_sha256="",
            num_parameters=1,
            num_clients=clients,
            job={"seed": 1, "attack": {"use": "sign_flip", "members": members}},
            versions={},
            between_sites=sites,
        )

    assert hostile_clients(run({"share": 0.5})) == {"a", "c"}  # as `Members` says of this seed
    assert hostile_clients(run({"share": 0.5}, clients=5)) == set()
    assert hostile_clients(run({"clients": ["d"]}, clients=5)) == {"d"}
    assert hostile_clients(run({"share": 0.5, "each_round": True})) == set()
    assert hostile_clients(run({"share": 0.5}, sites=True)) == set()
    assert hostile_clients(replace(run({}), job={"attack": {}})) == set()
