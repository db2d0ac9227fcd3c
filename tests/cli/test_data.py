import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hanse.cli.bars import bars
from hanse.cli.data_show import parse_settings
from hanse.core.errors import JobError
from hanse.data.summary import PartitionSummary
from hanse.jobs.registry import NAMES
from tests.cli.conftest import Hanse


def test_the_list_names_all_sets_and_partitioners(hanse: Hanse) -> None:
    said = hanse("data", "list")
    assert said.code == 0
    for name in (*NAMES["data"], *NAMES["partition"]):
        assert f" {name} " in said.out
    found = json.loads(hanse("data", "list", "--json").out)
    assert set(found["sets"]) == set(NAMES["data"])
    assert found["partitioners"]["dirichlet"]["settings"]["clients"] is None
    assert found["partitioners"]["dirichlet"]["settings"]["min_size"] == 1


def test_a_partition_is_shown_as_bars_and_drawn(hanse: Hanse) -> None:
    said = hanse("data", "show", "wine", "--partition", "dirichlet", "--alpha", "0.3", "--clients", "4")
    assert said.code == 0, said.err
    assert "client-3" in said.out
    assert "picture  wine-dirichlet.png" in said.out
    assert Path("wine-dirichlet.png").read_bytes().startswith(b"\x89PNG")
    said = hanse("data", "show", "wine", "--partition", "iid", "--clients=4", "--picture", "p.svg")
    assert "<svg" in Path("p.svg").read_text(encoding="utf-8")


def test_the_same_as_json(hanse: Hanse) -> None:
    found = json.loads(hanse("data", "show", "wine", "--partition", "iid", "--clients", "2", "--json").out)
    assert found["num_clients"] == 2
    assert sum(sum(classes.values()) for classes in found["clients"].values()) == 178
    found = json.loads(hanse("data", "show", "diabetes", "--partition", "iid", "--clients", "2", "--json").out)
    assert found["clients"] == {"client-0": 221, "client-1": 221}
    assert json.loads(hanse("data", "show", "wine", "--json").out)["training_examples"] == 178


def test_a_job_file_can_be_shown(hanse: Hanse, job: Path) -> None:
    said = hanse("data", "show", job)
    assert said.code == 0, said.err
    assert "picture  job-iid.png" in said.out
    assert "client-2" in said.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("wien",), 2, "did you mean `wine`?"),
        (("wine", "--partition", "diriclet"), 2, "did you mean `dirichlet`?"),
        (("wine", "--partition", "iid", "--client", "3"), 2, "did you mean `clients`?"),
        (("wine", "--alpha", "3"), 2, "need --partition"),
        (("wine", "--partition", "iid", "--clients", "many"), 2, 'got "many"; wanted a whole number'),
        (("wine", "--partition", "iid", "--clients", "500"), 3, "178 training rows"),
        (("wine", "--partition", "iid", "--clients", "3", "--picture", "a.bmpx"), 2, "use .png or .svg"),
        (("wine", "--partition", "iid", "--clients", "3", "--picture", "no/a.png"), 5, "no/a.png"),
        (("mnist",), 3, "--data-dir"),
    ],
)
def test_what_can_not_be_shown_is_a_sentence(hanse: Hanse, arguments: tuple[str, ...], code: int, words: str) -> None:
    said = hanse("data", "show", *arguments)
    assert said.code == code, said.err
    assert words in said.err


def test_without_matplotlib_there_is_no_picture_unless_asked_for(hanse: Hanse, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name == "hanse.plots.picture"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ("data", "show", "wine", "--partition", "iid", "--clients", "2")
    said = hanse(*arguments)
    assert said.code == 0
    assert "no picture" in said.out
    assert hanse(*arguments, "--picture", "x.png").code == 2


def test_settings_of_sets_and_partitioners_are_told_apart(hanse: Hanse, tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 2}\n" for i in range(20))
    (tmp_path / "t.csv").write_text("a,b\n" + rows, encoding="utf-8")
    said = hanse("data", "show", "table", "--path", "t.csv", "--target", "b", "--partition", "iid", "--clients", "2")
    assert said.code == 0, said.err


def test_free_options() -> None:
    assert parse_settings(["--a-b", "x y", "--c=-1", "--d"]) == {"a_b": "x y", "c": -1, "d": True}
    with pytest.raises(JobError, match="is no option"):
        parse_settings(["stray"])


def text_of(summary: PartitionSummary, **settings: int) -> str:
    from rich.console import Console

    console = Console(width=100, file=None)
    with console.capture() as captured:
        console.print(bars(summary, **settings))
    return captured.get()


def summary_of(counts: np.ndarray) -> PartitionSummary:
    sizes = counts.sum(axis=1)
    return PartitionSummary(
        num_clients=len(counts),
        num_examples=int(sizes.sum()),
        num_empty=0,
        size_quantiles=np.quantile(sizes, [0, 0.25, 0.5, 0.75, 1]),
        clients=tuple(f"c{i}" for i in range(len(counts))),
        sizes=sizes,
        classes=tuple(f"k{i}" for i in range(counts.shape[1])),
        class_counts=counts,
    )


def test_bars_are_as_long_as_their_examples() -> None:
    lines = text_of(summary_of(np.array([[24, 24], [0, 12], [0, 0]]))).splitlines()
    assert lines[0].split() == ["c0", "48", "█" * 24 + "▓" * 24]
    assert lines[1].split() == ["c1", "12", "▓" * 12]
    assert lines[2].split() == ["c2", "0"]


def test_many_classes_get_a_cell_each() -> None:
    counts = np.zeros((1, 6), dtype=int)
    counts[0, 2] = 10
    assert "    ██" in text_of(summary_of(counts)).splitlines()[0]


def test_of_many_clients_some_are_shown() -> None:
    lines = text_of(summary_of(np.ones((100, 2), dtype=int)), most=5).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["c0", "c25", "c50", "c74", "c99"]
    assert "5 of 100 clients are shown" in lines[-1]
