"""One cell: simulated, refused, or failed."""

from __future__ import annotations

import pytest

from hanse.core.errors import RunError, RunInterrupted
from hanse.robustness import cells
from hanse.robustness.cells import Found, run_cell
from hanse.robustness.plan import Place, Wanted, make_plan

PLAN = make_plan(Wanted(rules=["bulyan", "average", "krum"], attacks=["sign_flip", "backdoor"], rounds=2))


def place(rule: str, *, attack: str = "sign_flip", share: float = 0.2) -> Place:
    return Place(partition="iid", share=share, attack=attack, rule=rule)


def test_a_cell_is_a_run_that_can_be_repeated() -> None:
    found = run_cell(PLAN, place("mean", attack="backdoor"))
    assert found.status == "ran"
    assert found.accuracy is not None
    assert 0 < found.accuracy < 1
    assert found.success is not None
    assert run_cell(PLAN, place("mean", attack="backdoor")) == found


def test_without_a_backdoor_there_is_no_success() -> None:
    assert run_cell(PLAN, place("mean")).success is None


@pytest.mark.parametrize(
    ("rule", "share", "words"), [("bulyan", 0.4, "`Bulyan` needs at least 35 updates for 8"), ("average", 0.2, "4 att")]
)
def test_rules_that_do_not_tolerate_so_many_are_not_run(
    rule: str, share: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "run_simulation", None)
    found = run_cell(PLAN, place(rule, share=share))
    assert (found.status, found.accuracy) == ("not run", None)
    assert words in found.reason


def test_at_the_bound_a_rule_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cells.reason_not_to_run(PLAN, place("bulyan", share=0.2)) == ""  # 4 · 4 + 3 = 19 of 20
    assert cells.reason_not_to_run(PLAN, place("krum", share=0.4)) == ""  # 2 · 8 + 3 = 19
    assert "21 updates" in cells.reason_not_to_run(PLAN, place("krum", share=0.45))


def raising(error: BaseException) -> object:
    def run(simulation: object) -> None:
        raise error

    return run


def test_a_run_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "run_simulation", raising(RunError("nobody\nanswered")))
    assert run_cell(PLAN, place("mean")) == Found(status="failed", reason="nobody answered")


def test_a_run_that_is_stopped_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "run_simulation", raising(RunInterrupted("stopped")))
    with pytest.raises(RunInterrupted):
        run_cell(PLAN, place("mean"))
