"""The page: what it must hold, and that it needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hanse.robustness.cells import Found
from hanse.robustness.page import render_page, write_page
from hanse.robustness.plan import Place, Plan, Wanted, make_plan
from tests.robustness.conftest import pretended


@pytest.fixture
def page(plan: Plan) -> str:
    return render_page(plan, {place: pretended(plan, place) for place in plan.cells()})


def cells_of(page: str, attack: str) -> list[str]:
    """Cells of a row of the first table."""
    row = re.search(rf'<th scope="row">{attack}\b.*?</tr>', page, re.DOTALL)
    assert row is not None
    return re.findall(r"<td.*?</td>", row[0], re.DOTALL)


def test_there_is_a_table_for_each_share(page: str) -> None:
    assert re.findall(r'<section id="([^"]+)"', page) == ["iid-20", "iid-40", "settings", "repeat"]
    assert page.count('<table class="heat">') == 2


def test_cells_show_what_was_found(page: str) -> None:
    mean, krum, median, bulyan = cells_of(page, "sign flip")
    assert ">10.0<" in mean
    assert 'class="hot fails" style="--heat: 1.0"' in mean
    assert ">94.0<" in krum
    assert 'class="hot"' in krum
    assert 'title="median under sign_flip: accuracy 94.0 %"' in median
    assert bulyan


def test_backdoors_show_their_success(page: str) -> None:
    mean, krum, *_ = cells_of(page, "backdoor")
    assert "95.0<small>90.0</small>" in mean
    assert "fails" in mean
    assert "94.0<small>3.0</small>" in krum
    assert "fails" not in krum


def test_failed_cells_are_shown_failing_and_reasons_are_escaped(page: str) -> None:
    median = cells_of(page, "gaussian noise")[2]
    assert ">failed<" in median
    assert "--heat: 1.0" in median
    assert "all &lt;updates&gt; were lost" in median


def test_refused_cells_say_why(page: str) -> None:
    second = page[page.index('<section id="iid-40"') :]
    refused = cells_of(second, "no attack")[3]
    assert ">—<" in refused
    assert "rule `Bulyan` needs at least 35 updates for 8 attackers" in refused


def test_attacks_that_do_nothing_are_marked(page: str) -> None:
    assert page.count("<small>does nothing to the mean</small>") == 6
    assert "An attack that does nothing proves nothing" in page
    assert "It does not survive sign_flip" in page


def test_settings_and_the_command_are_there(page: str) -> None:
    assert "sign_flip: scale = 5.0" in page
    assert "backdoor: size = 2" in page
    assert (
        "hanse bench robustness --rules krum,median,bulyan --attacks sign_flip,gaussian_noise,label_flip,backdoor,"
        "free_rider --partitions iid --rounds 2" in page
    )


def test_the_command_of_the_default_table_needs_no_options() -> None:
    plan = make_plan(Wanted())
    found = {place: Found(status="ran", accuracy=0.9, success=0.0) for place in plan.cells()}
    assert "<code>hanse bench robustness</code>" in render_page(plan, found)


def test_it_needs_nothing_else_and_has_light_and_dark(page: str) -> None:
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert '<meta name="color-scheme" content="light dark">' in page


def test_a_table_without_a_reference_has_a_page(plan: Plan) -> None:
    found = {place: pretended(plan, place) for place in plan.cells()}
    for share in plan.shares:
        found[Place(partition="iid", share=share, attack="none", rule="mean")] = Found(status="failed", reason="lost")
    page = render_page(plan, found)
    assert "Plain mean did not come to its end without an attack: lost." in page


def test_the_same_cells_give_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    own = replace(plan, shares=(0.2,))
    found = {place: pretended(own, place) for place in own.cells()}
    first = write_page(own, found, tmp_path / "one.html").read_bytes()
    assert write_page(own, dict(reversed(found.items())), tmp_path / "two.html").read_bytes() == first
