"""The privacy that a run has spent: in its report, its summary, and beside other runs."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from hanse.cli.privacy_table import privacy_table, spent_cell, spent_lines, told_apart
from hanse.cli.tables import run_summary
from hanse.plots.privacy import draw_privacy
from hanse.privacy.accountant import Spent
from hanse.privacy.budget import Budget
from hanse.report import render_report
from hanse.rounds.privacy.spending import PrivacyAccount
from tests.report.test_html import Page, make_run


def account(rounds: int = 3, **changes: object) -> PrivacyAccount:
    spent = {
        n: Spent(epsilon=n / 2, delta=1e-5, method="pld", reason="rounded up", neighbours="add-or-remove-one")
        for n in range(1, rounds + 1)
    }
    base = PrivacyAccount(
        unit="client",
        budget=Budget(epsilon=4.0, delta=1e-5),
        delta=1e-5,
        releases=rounds,
        by_round=spent,
        mechanism="gaussian",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def text_of(renderable: object) -> str:
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return " ".join(captured.get().split())


def test_a_private_run_has_a_section_with_a_plot_and_a_table() -> None:
    text = render_report(make_run(), privacy=account())
    page = Page(text)
    assert {"privacy", "privacy-title"} <= set(page.ids)
    assert text.count('id="plot-privacy') >= 1
    assert "ε = 1.5 of 4 at δ = 1e-05 after 3 releases." in text
    assert "one client: one more or one fewer. Noise (gaussian) is added at the server" in text
    for cell in ("Epsilon", "0.5000", "1.0000", "1.5000"):
        assert cell in page.cells
    assert text == render_report(make_run(), privacy=account())


def test_other_runs_have_none() -> None:
    for found in (None, account(0)):
        assert 'id="privacy"' not in render_report(make_run(), privacy=found)
    assert "privacy" not in text_of(run_summary(make_run()))


def test_noise_over_all_rounds_is_one_figure_and_no_plot() -> None:
    whole = {0: dataclasses.replace(account(1).by_round[1], epsilon=3.9, neighbours="zero-out-one")}
    text = render_report(make_run(), privacy=account(by_round=whole, releases=1, mechanism="banded"))
    assert "ε = 3.9 of 4 at δ = 1e-05 after 1 release, for all rounds." in text
    assert "one sends nothing" in text
    assert "plot-privacy" not in text


def test_noise_at_the_clients_protects_from_the_server_too() -> None:
    text = render_report(make_run(), privacy=account(local=True, mechanism="local_gaussian"))
    assert "whoever reads them, the server too: each client adds the noise (local_gaussian) itself." in text


def test_the_summary_tells_a_few_rounds() -> None:
    text = text_of(run_summary(make_run(), privacy=account(24)))
    assert "ε = 12 of 4" in text
    assert "0.5 after 1, 2.5 after 5, 5 after 10, 7 after 14, 9.5 after 19, 12 after 24" in text
    assert "not from the server" in text
    assert spent_lines(account(0)) == [("privacy", "nothing was released yet")]
    assert (spent_cell(None), spent_cell(account(0)), spent_cell(account())) == ("–", "–", "1.5")
    assert "0.5000" in text_of(privacy_table(account()))


@pytest.mark.parametrize("budget", [None, 4.0])
def test_the_plot_leaves_out_what_is_infinite(budget: float | None) -> None:
    figure = draw_privacy({1: 1.0, 2: float("inf"), 3: 2.0}, budget=budget)
    [axes] = figure.axes
    line = axes.get_lines()[0]
    assert list(line.get_xdata()) == [1, 3]
    assert len(axes.get_lines()) == (1 if budget is None else 2)
    assert draw_privacy({}).axes[0].axison is False


def test_runs_that_hide_other_things_are_not_compared_in_silence() -> None:
    assert told_apart([account(), None, account(2)]) == ""
    assert told_apart([account(), account(unit="example", delta=1e-6)]).endswith("differ in who is protected, δ.")


def test_an_infinite_epsilon_is_no_word_of_a_programming_language() -> None:
    endless = Spent(epsilon=float("inf"), delta=1e-5, method="exact", reason="no noise", neighbours="add-or-remove-one")
    without = account(by_round={1: endless})
    assert spent_cell(without) == "∞"
    assert "ε = ∞ of 4" in text_of(privacy_table(without))
