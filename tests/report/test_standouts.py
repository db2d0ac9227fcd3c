"""Who stood out, and what a simulated attack came to, in a report."""

from __future__ import annotations

from dataclasses import replace

from hanse.core.judged_round import Verdict
from hanse.report.html import render_report
from hanse.report.standouts import attack_section, standouts_section
from hanse.rounds.history import History, RoundRecord, RunRecord

MEMBERS = {"use": "model_replacement", "members": {"clients": ["b"]}}


def run(*, scores: bool = True, weight: float | None = 0.5, job: dict[str, object] | None = None) -> RunRecord:
    def verdict(client: str, norm: float, reason: str = "") -> Verdict:
        told = {"norm": norm, "direction": -0.25, "likeness": 0.5, "flags": 1.0} if scores else {}
        return Verdict(client=client, weight=weight, scores=told, reason=reason, quarantined=bool(reason))

    found = (verdict("a", 1.0), verdict("b", 125.0, "its norm is 125 times the median client's"))
    rounds = (
        RoundRecord(round=0, central={"accuracy": 0.1}, attack={"success": 0.0}),
        RoundRecord(round=1, cohort=("a", "b"), verdicts=found, attack={"members": 1.0, "success": 0.75}),
        RoundRecord(round=2, cohort=("a",), verdicts=found[:1], attack={"members": 0.0, "success": 0.25}),
    )
    return RunRecord(
        name="x",
        status="finished",
        path="",
        rounds_planned=2,
        history=History(rounds=rounds, objective=("accuracy", "max")),
        model_sha256="",
        num_parameters=1,
        num_clients=2,
        job=job or {},
        versions={},
    )


def test_the_section() -> None:
    section = standouts_section(run())
    assert section is not None
    assert section.lead == "1 of 2 clients stood out; it is not asked any more since round 2."
    assert len(section.plots) == 2
    reasons, scores = section.tables
    assert reasons.head[1:4] == ("Stood out", "In rounds", "Not asked since")
    assert reasons.rows == (("b", "1", "1", "2", "its norm is 125 times the median client's"),)
    assert reasons.words == {0, 4}
    assert scores.head[1:] == ("Judged", "Norm", "Direction", "Likeness", "Weight")
    assert scores.rows == (
        ("b", "1", "125", "−0.25", "0.50", "50.0 %"),
        ("a", "2", "1.00", "−0.25", "0.50", "75.0 %"),
    )
    assert scores.strong == {(0, 0)}
    assert "Loss" not in " ".join(section.text)


def test_there_is_none_without_scores_and_no_column_without_weights() -> None:
    assert standouts_section(run(scores=False)) is None
    section = standouts_section(run(weight=None))
    assert section is not None
    assert "Weight" not in section.tables[-1].head


def test_what_the_simulation_knows_is_told() -> None:
    section = standouts_section(run(job={"attack": MEMBERS}))
    assert section is not None
    assert section.text[0] == "Of 1 client that the simulation has attack, 1 stood out; so did no honest one."
    reasons, scores = section.tables
    assert [row[1] for row in scores.rows] == ["hostile", "honest"]
    assert (reasons.rows[0][1], reasons.words) == ("hostile", {0, 5})
    wrong = standouts_section(run(job={"attack": {**MEMBERS, "members": {"clients": ["a"]}}}))
    assert wrong is not None
    assert wrong.text[0].endswith("0 stood out; so did 1 honest one.")


def test_a_simulated_attack() -> None:
    section = attack_section(run(job={"attack": MEMBERS}))
    assert section is not None
    assert section.lead.startswith(
        "model_replacement, simulated; 0 to 1 hostile clients in a round; its trigger works on"
    )
    assert section.tables[0].rows == (("0", "", "0.0 %"), ("1", "1", "75.0 %"), ("2", "0", "25.0 %"))
    assert len(section.plots) == 1
    plain = run(job={"attack": MEMBERS})
    rounds = tuple(replace(one, attack={}) for one in plain.history.rounds)
    bare = attack_section(replace(plain, history=replace(plain.history, rounds=rounds)))
    assert bare is not None
    assert (bare.plots, bare.tables) == ((), ())
    assert attack_section(run()) is None


def test_the_page_has_both() -> None:
    page = render_report(run(job={"attack": MEMBERS}))
    assert page.index('id="attack"') < page.index('id="standouts"')
    assert 'id="standouts"' not in render_report(run(scores=False))
