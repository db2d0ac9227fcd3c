"""`hanse bench robustness`: a tiny table, end to end."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hanse.cli.bench_progress import BenchProgress
from hanse.robustness.cells import Found
from hanse.robustness.plan import Place, Wanted, make_plan
from tests.cli.conftest import Hanse

TINY = ("--rules", "krum", "--attacks", "sign_flip,backdoor", "--shares", "0.2", "--partitions", "iid", "--rounds", "2")


def test_a_tiny_table(hanse: Hanse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = hanse("bench", "robustness", *TINY)
    assert said.code == 0, said.err
    assert "20 % attackers, IID" in said.out
    assert said.out.endswith("page     robustness/robustness.html\nresults  robustness/results.csv\n")
    assert [line.split(" · ")[0] for line in said.err.splitlines()] == ["2/6 cells", "4/6 cells", "6/6 cells"]
    results = (tmp_path / "robustness/results.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(results)))
    assert [(row["attack"], row["rule"], row["status"]) for row in rows] == [
        (attack, rule, "ran") for attack in ("none", "sign_flip", "backdoor") for rule in ("mean", "krum")
    ]
    assert [bool(row["success"]) for row in rows] == [False, False, False, False, True, True]
    page = (tmp_path / "robustness/robustness.html").read_text()
    assert "hanse bench robustness" in page

    monkeypatch.setattr("hanse.robustness.cells.run_simulation", None)  # nothing is run twice
    again = hanse("bench", "robustness", *TINY, "--json")
    assert again.code == 0
    assert again.err == "6 of 6 cells are there already\n"
    found = json.loads(again.out)
    assert [cell["rule"] for cell in found["cells"]] == ["mean", "krum"] * 3
    assert (tmp_path / "robustness/results.csv").read_text() == results
    assert (tmp_path / "robustness/robustness.html").read_text() == page

    other = hanse("bench", "robustness", *TINY, "--seed", "1")
    assert other.code == 2
    assert "holds a table of other settings: seed changed" in other.err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rules", "krun", "did you mean `krum`?"),
        ("--attacks", "sign_flop", "did you mean `sign_flip`?"),
        ("--data", "mnst", "did you mean `mnist`?"),
        ("--shares", "many", "`many` is no number"),
    ],
)
def test_misspelt_names_get_a_hint(hanse: Hanse, tmp_path: Path, option: str, value: str, words: str) -> None:
    said = hanse("bench", "robustness", option, value)
    assert said.code == 2
    assert words in said.err
    assert not (tmp_path / "robustness").exists()


def test_a_misspelt_bench_gets_a_hint(hanse: Hanse) -> None:
    said = hanse("bench", "robustnes")
    assert said.code == 2
    assert "did you mean `robustness`?" in said.err


def test_bench_alone_shows_its_help(hanse: Hanse) -> None:
    assert "robustness" in hanse("bench").out


def test_a_live_line_on_a_terminal_and_failures_above_it() -> None:
    plan = make_plan(Wanted(rules=["krum"], attacks=["ipm"]))
    file = io.StringIO()
    with BenchProgress(plan, console=Console(file=file, force_terminal=True, width=140)) as progress:
        progress.begun(1, 16)
        progress.ended(
            Place(partition="iid", share=0.2, attack="ipm", rule="mean"), Found(status="ran", accuracy=0.9), 75.0
        )
        progress.ended(
            Place(partition="iid", share=0.2, attack="ipm", rule="krum"), Found(status="failed", reason="lost"), 0.0
        )
    shown = file.getvalue()
    assert "1 of 16 cells are there already" in shown
    assert "3/16 cells" in shown
    assert "failed  iid · 20% · ipm · krum: lost" in shown


def test_quiet_says_nothing() -> None:
    plan = make_plan(Wanted(rules=["krum"], attacks=["ipm"]))
    file = io.StringIO()
    with BenchProgress(plan, console=Console(file=file), quiet=True) as progress:
        progress.begun(1, 16)
        progress.ended(Place(partition="iid", share=0.2, attack="ipm", rule="krum"), Found(status="failed"), 1.0)
    assert file.getvalue() == ""
