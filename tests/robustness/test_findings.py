"""What a table says in sentences, on figures made by hand."""

from __future__ import annotations

import pytest

from hanse.robustness.cells import Found
from hanse.robustness.entries import AttackEntry
from hanse.robustness.findings import findings, survives
from hanse.robustness.page import heat
from hanse.robustness.plan import Place, Plan
from tests.robustness.conftest import pretended

FLIP = AttackEntry(name="flip", attack={"use": "sign_flip"})
DOOR = AttackEntry(name="door", attack={"use": "backdoor"}, backdoor=True)


def ran(accuracy: float, success: float | None = None) -> Found:
    return Found(status="ran", accuracy=accuracy, success=success)


@pytest.mark.parametrize(
    ("entry", "found", "kept"),
    [
        (FLIP, ran(0.92), True),  # 3 points exactly
        (FLIP, ran(0.9199), False),
        (FLIP, ran(0.99), True),
        (DOOR, ran(0.95, 0.05), True),
        (DOOR, ran(0.95, 0.0501), False),
        (DOOR, ran(0.9, 0.0), False),
        (DOOR, ran(0.95), False),  # nobody measured whether it is shut
        (FLIP, Found(status="failed"), False),
        (FLIP, Found(status="not run"), False),
    ],
)
def test_surviving(entry: AttackEntry, found: Found, kept: bool) -> None:
    assert survives(entry, found, 0.95) is kept
    if (found.accuracy is not None and found.success is not None) or not entry.backdoor:
        assert (heat(entry, found, 0.95) < 0.5) is kept


def test_heat_grows_with_what_is_lost() -> None:
    heats = [heat(FLIP, ran(accuracy), 0.95) for accuracy in (0.96, 0.95, 0.935, 0.92, 0.91, 0.8, 0.65, 0.1)]
    assert heats == sorted(heats)
    assert (heats[0], heats[-2], heats[-1]) == pytest.approx((0.0, 1.0, 1.0))
    assert heat(DOOR, ran(0.95, 0.5), 0.95) == 1.0


def test_sentences(plan: Plan) -> None:
    found = {place: pretended(plan, place) for place in plan.cells()}
    own = findings(plan, found, "iid", 0.4)
    assert own.title == "40 % attackers, IID"
    assert own.reference == 0.95
    rows = {row.attack: row for row in own.rows}
    assert rows["sign_flip"].survivors == ("krum", "median")
    assert rows["sign_flip"].refused == ("bulyan",)
    assert rows["gaussian_noise"].survivors == ("krum",)
    assert [name for name, row in rows.items() if row.proves_nothing] == ["gaussian_noise", "label_flip", "free_rider"]
    assert own.sentences == (
        "Without an attack, plain mean reaches 95.0 %.",
        "It does not survive sign_flip (10.0 %) and backdoor (95.0 %, backdoor 90.0 %).",
        "An attack that does nothing proves nothing: plain mean survives gaussian_noise, label_flip and free_rider, so "
        "that another rule does, too, says little.",
        "What plain mean does not survive, krum and median do.",
    )


def test_rules_that_lose_without_an_attack_are_named(plan: Plan) -> None:
    found = {place: pretended(plan, place) for place in plan.cells()}
    found[Place(partition="iid", share=0.2, attack="none", rule="krum")] = ran(0.9)
    assert findings(plan, found, "iid", 0.2).sentences[-1] == (
        "Without any attack, more than 3 points are lost by krum (90.0 %)."
    )


def test_where_nobody_survives_it_is_said(plan: Plan) -> None:
    found = {place: pretended(plan, place) for place in plan.cells()}
    for rule in ("krum", "median", "bulyan"):
        found[Place(partition="iid", share=0.2, attack="sign_flip", rule=rule)] = ran(0.5)
    sentences = findings(plan, found, "iid", 0.2).sentences
    assert "No rule survives everything that plain mean does not." in sentences
    assert "No rule here survives sign_flip." in sentences


def test_without_the_reference_nothing_is_claimed(plan: Plan) -> None:
    found = {place: pretended(plan, place) for place in plan.cells()}
    found[Place(partition="iid", share=0.2, attack="none", rule="mean")] = Found(status="failed", reason="no data")
    own = findings(plan, found, "iid", 0.2)
    assert own.rows == ()
    assert own.sentences == ("Plain mean did not come to its end without an attack: no data.",)
