from __future__ import annotations

import dataclasses
import errno
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hanse.core.errors import StorageError, StorageFullError
from hanse.plots import Holdings
from hanse.report import html as html_module
from hanse.report import render_report, write_report
from hanse.rounds.history import ClientScore, Comparison, FailureRecord, History, RoundRecord, RunRecord

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Parses a page and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("href", "src", "aria-labelledby"):
                self.targets.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("th", "td", "strong"):
            self.cells.append(data)


def make_run(num_rounds: int = 3, num_clients: int = 4, **changes: object) -> RunRecord:
    names = (EVIL, "b & c", "_d", "e$f$", *(f"c{i}" for i in range(4, num_clients)))[:num_clients]
    rounds = []
    for i in range(num_rounds + 1):
        value = 1 - 0.5 / (i + 1)
        rounds.append(
            RoundRecord(
                round=i,
                status="abandoned" if i == 2 else "finished",
                cohort=names if i else (),
                failures=(FailureRecord(client=EVIL, kind="UpdateError", message=EVIL),) if i == 2 else (),
                train={"loss": 1 - value} if i else {},
                central={"accuracy": value, "loss": 1 - value},
                federated={"accuracy": value - 0.01, "loss": 1.01 - value},
                clients=tuple(
                    ClientScore(client=name, num_examples=10, metrics={"accuracy": value - 0.001 * j, "loss": 0.1})
                    for j, name in enumerate(names)
                ),
                bytes_up=4000 if i else 0,
                bytes_down=4000 if i else 0,
                seconds={"train": 1.0, "evaluate": 0.5},
                note=EVIL if i == 2 else "",
            )
        )
    comparison = Comparison(
        metric="accuracy",
        better="max",
        clients=names,
        num_examples=(10,) * num_clients,
        columns={"own": (0.7,) * num_clients, "federated": (0.8,) * num_clients, "pooled": (0.9,) * num_clients},
        overall={"own": 0.7, "federated": 0.8, "pooled": 0.9},
    )
    run = RunRecord(
        name=EVIL,
        status="finished",
        path=f"runs/{EVIL}",
        rounds_planned=num_rounds,
        history=History(rounds=tuple(rounds), objective=("accuracy", "max")),
        model_sha256="ab" * 32,
        num_parameters=1000,
        num_clients=num_clients,
        job={"name": EVIL, "rounds": num_rounds, "strategy": {"use": "fedavg", "mu": None}},
        versions={"hanse": "0.1.0", EVIL: EVIL},
        started="2026-01-01T00:00:00+00:00",
        seconds=3.5,
        comparison=comparison,
    )
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def holdings(num_clients: int = 4) -> Holdings:
    clients = [EVIL, *(f"c{i}" for i in range(1, num_clients))]
    return Holdings(clients=clients, counts=np.ones((num_clients, 2), dtype=int), classes=(EVIL, "b"))


def test_the_page_is_whole_and_stands_alone() -> None:
    text = render_report(make_run(), partition=holdings())
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    inner = [target for target in page.targets if not target.startswith("data:")]
    assert all(target.lstrip("#") in page.ids for target in inner)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    assert page.tags.count("h1") == 1
    assert page.tags.count("svg") == 7
    assert "script" not in page.tags


def test_every_plot_has_words_for_those_who_do_not_see_it() -> None:
    text = render_report(make_run(), partition=holdings())
    labels = re.findall(r'<svg[^>]*role="img"[^>]*>', text)
    assert len(labels) == 7
    assert all(re.search(r'aria-label="[^"]{10,}"', label) for label in labels)


def test_names_can_not_become_markup() -> None:
    text = render_report(make_run(), partition=holdings())
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10


def test_it_says_what_the_run_found() -> None:
    text = render_report(make_run(), partition=holdings(), command="hanse run job.toml --workers 2")
    page = Page(text)
    assert "Accuracy 87.5\N{NO-BREAK SPACE}% after round 3." in text
    assert "Joining is worth it for all 4 clients." in text
    assert "1 update lost; 1 round abandoned." in text
    assert "ab" * 32 in text
    assert "hanse run job.toml --workers 2" in text
    assert "use = &#34;fedavg&#34;" in text
    assert {"70.0 %", "80.0 %", "90.0 %", "+10.0 points"} <= set(page.cells)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(make_run(), tmp_path / "one.html", partition=holdings())
    second = write_report(make_run(), tmp_path / "two.html", partition=holdings())
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", ["no rounds", "never evaluated", "not finite", "one client", "only failures"])
def test_what_is_missing_is_left_out(kind: str) -> None:
    run = make_run(comparison=None, started="", path="", model_sha256="")
    bare = dataclasses.replace
    rounds = run.history.rounds
    if kind == "no rounds":
        run = bare(run, history=History())
    elif kind == "never evaluated":
        blank = tuple(bare(r, train={}, central=None, federated=None, clients=()) for r in rounds)
        run = bare(run, history=bare(run.history, rounds=blank))
    elif kind == "not finite":
        score = ClientScore(client="a", num_examples=0, metrics={"accuracy": math.nan})
        blank = tuple(bare(r, central={"accuracy": math.nan}, federated=None, clients=(score,)) for r in rounds)
        run = bare(run, history=bare(run.history, rounds=blank))
    elif kind == "one client":
        run = make_run(num_clients=1)
    else:
        failed = RoundRecord(round=1, status="abandoned", failures=(FailureRecord(client="a", kind="x", message=""),))
        run = bare(run, status="failed", history=History(rounds=(failed,)))
    text = render_report(run)
    Page(text)
    expected = {
        "no rounds": "The model was never evaluated.",
        "never evaluated": "Nothing was measured in any round.",
        "not finite": "No round has a finite accuracy.",
        "one client": "Joining is worth it for the only client.",
        "only failures": "1 update lost; 1 round abandoned.",
    }
    assert expected[kind] in text


def test_a_model_that_did_not_improve_is_told_so() -> None:
    run = make_run()
    same = tuple(dataclasses.replace(r, central={"accuracy": 0.5 - 0.1 * r.round}) for r in run.history.rounds)
    text = render_report(dataclasses.replace(run, history=dataclasses.replace(run.history, rounds=same)))
    assert "training has not improved on the model it began with" in text


def test_large_runs_stay_quick_and_small(tmp_path: Path) -> None:
    run = make_run(num_rounds=300, num_clients=100)
    started = time.process_time()
    path = write_report(run, tmp_path / "r.html", partition=holdings(100))
    assert time.process_time() - started < 6  # about half a second where nothing else runs
    assert path.stat().st_size < 3_000_000


def test_tables_of_thousands_are_cut_and_say_so(tmp_path: Path) -> None:
    run = make_run(num_rounds=900, num_clients=3)
    crowd = tuple(ClientScore(client=f"c{i}", num_examples=1, metrics={"accuracy": i / 3000}) for i in range(3000))
    last = dataclasses.replace(run.history.rounds[-1], clients=crowd)
    history = dataclasses.replace(run.history, rounds=(*run.history.rounds[:-1], last))
    path = write_report(dataclasses.replace(run, history=history), tmp_path / "r.html", partition=holdings(3000))
    text = path.read_text(encoding="utf-8")
    assert "Every 3th of 901 rounds" not in text
    assert "One round in 3 of 901, and the last" in text
    assert "Each client, worst first (the first 400 of 3,000)" in text
    assert path.stat().st_size < 3_000_000


def test_missing_folders_are_made_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    path = write_report(make_run(), tmp_path / "a" / "b" / "report.html")
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StorageFullError), (errno.EACCES, StorageError)])
def test_an_old_report_survives_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(html_module.Path, "replace", fail)
    with pytest.raises(StorageError) as caught:
        write_report(make_run(), path)
    assert type(caught.value) is kind
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_robust_accuracy_is_drawn_where_it_was_measured() -> None:
    plain = make_run()
    rounds = tuple(
        dataclasses.replace(one, central={**(one.central or {}), "robust_accuracy": 0.25})
        for one in plain.history.rounds
    )
    text = render_report(dataclasses.replace(plain, history=dataclasses.replace(plain.history, rounds=rounds)))
    assert "Robust accuracy by round" in text
    assert "25.0 %" in Page(text).cells
    assert "Robust accuracy" not in render_report(plain)
