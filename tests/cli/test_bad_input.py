import os
from pathlib import Path

import pytest

from tests.cli.conftest import JOB, Hanse

CSV = "age,ward,ill\n" + "".join(f"{30 + i},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}\n" for i in range(40))


def write(folder: Path, text: str, name: str = "job.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def csv_job(data: str, task: str = 'use = "logistic_regression"') -> str:
    return f'rounds = 1\nstrategy = "fedavg"\n[task]\n{task}\n[data]\n{data}\n'


NATURAL = 'partition = { use = "natural", column = "ward" }'


@pytest.mark.parametrize(
    ("line", "instead", "code", "words"),
    [
        ("mu = 0.01", "muu = 0.01", 2, ("strategy.muu", "did you mean `mu`?")),
        ("rounds = 3", "ruonds = 3", 2, ("ruonds", "did you mean `rounds`?", "rounds: missing")),
        ("lr = 0.05", "lr = -0.05", 2, ("strategy.local.optimizer.lr", "-0.05", "more than 0")),
        ("lr = 0.05", 'lr = "fast"', 2, ("strategy.local.optimizer.lr", 'got "fast"; wanted a number')),
        ("rounds = 3", "rounds = ", 2, ("not valid TOML", "line 2")),
        ('use = "wine"', 'use = "whine"', 2, ("data.use", "did you mean `wine`?")),
        ('use = "wine"', 'use = "mnist"', 3, ("HANSE_DATA", "--data-dir")),
        ("clients = 3", "clients = 300", 3, ("178 training rows",)),
        ('use = "wine"', 'use = "diabetes"', 3, ("classification needs class labels",)),
        ("[strategy]", "[strategy]\nlocal.personal = 3", 2, ()),
    ],
)
def test_a_bad_job_gets_a_sentence(
    hanse: Hanse, tmp_path: Path, line: str, instead: str, code: int, words: tuple[str, ...]
) -> None:
    assert line in JOB
    file = write(tmp_path, JOB.replace(line, instead))
    for command in ("run", "check"):
        said = hanse(command, file)
        assert said.code == code
        assert said.err.startswith("error: ")
        assert all(word in said.err for word in words), said.err
        assert "Traceback" not in said.err
    assert not Path("runs").exists()


def test_a_missing_job_file(hanse: Hanse, job: Path) -> None:
    said = hanse("run", "jop.toml")
    assert said.code == 2
    assert "there is no job file `jop.toml`" in said.err
    assert "did you mean `job.toml`?" in said.err


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (
            f'use = "table"\npath = "t.csv"\ntarget = "il"\ngroup = "ward"\n{NATURAL}',
            3,
            ("`il`", "did you mean `ill`?"),
        ),
        (f'use = "table"\npath = "t.csv"\ngroup = "ward"\n{NATURAL}', 2, ("data.target",)),
        (f'use = "table"\npath = "s.csv"\ntarget = "ill"\n{NATURAL}', 3, ("s.csv",)),
        (
            'use = "table"\ntarget = "ill"\npartition = "iid"',
            2,
            ("data.path: missing", "data.partition.clients: missing"),
        ),
        ('use = "table"\npath = 3\ntarget = "ill"', 2, ("data.path: got 3; wanted a path or a string",)),
        (f'use = "table"\npath = "t.csv"\ntarget = "ill"\n{NATURAL}', 3, ("no group column `ward`",)),
    ],
)
def test_bad_tables(hanse: Hanse, tmp_path: Path, data: str, code: int, words: tuple[str, ...]) -> None:
    write(tmp_path, CSV, "t.csv")
    said = hanse("run", write(tmp_path, csv_job(data)))
    assert said.code == code, said.err
    assert all(word in said.err for word in words), said.err


def test_a_table_beside_the_job_runs_from_anywhere(
    hanse: Hanse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    write(tmp_path, CSV, "project/t.csv")
    data = f'use = "table"\npath = "t.csv"\ntarget = "ill"\ngroup = "ward"\n{NATURAL}'
    write(tmp_path, csv_job(data), "project/job.toml")
    said = hanse("run", "project/job.toml", "-q")
    assert said.code == 0, said.err
    monkeypatch.chdir(tmp_path / "project")
    assert hanse("resume", "../runs/run", "--rounds", 2, "-q").code == 0


_OWN = """\
import numpy as np
from torch import nn
from hanse import Dataset, Examples, FederatedDataset

def labels_outside():
    return Dataset(name="own", train=Examples(np.zeros((4, 2), np.float32), np.array([0, 1, 2, 9])), classes=("a", "b"))

def one_empty():
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    y = np.arange(20) % 2
    return FederatedDataset.from_arrays({"full": (x, y), "empty": (x[:0], y[:0])})

def all_empty():
    x, y = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    return FederatedDataset.from_arrays({"a": (x, y), "b": (x, y)})

def narrow(num_inputs):
    return nn.Linear(num_inputs, 1)

def deaf(num_classes):
    return nn.Linear(7, num_classes)
"""


@pytest.mark.parametrize(
    ("data", "model", "words"),
    [
        ('"own_data:labels_outside"', "linear", ("label 2", "outside the range 0 to 1")),
        ('"own_data:all_empty"', "linear", ("no client", "example")),
        ('"own_data:one_empty"', "own_data:narrow", ("give the model's last layer 2 outputs",)),
        ('"own_data:one_empty"', "own_data:deaf", ("model", "[2]")),
    ],
)
def test_data_and_model_that_do_not_fit(
    hanse: Hanse, tmp_path: Path, data: str, model: str, words: tuple[str, ...]
) -> None:
    write(tmp_path, _OWN, "own_data.py")
    text = f'rounds = 1\ndata = {data}\nstrategy = "fedavg"\n[task]\nuse = "classification"\nmodel = "{model}"\n'
    said = hanse("run", write(tmp_path, text))
    assert said.code == 3, said.err
    assert all(word in said.err for word in words), said.err


def test_a_client_without_data_costs_its_own_update_only(hanse: Hanse, tmp_path: Path) -> None:
    write(tmp_path, _OWN, "own_data.py")
    text = 'rounds = 2\ndata = "own_data:one_empty"\nstrategy = "fedavg"\ntask = "logistic_regression"\n'
    file = write(tmp_path, text)
    assert "1 client without any" in hanse("check", file).out
    said = hanse("run", file)
    assert said.code == 0, said.err
    assert "empty" in said.err


def test_an_unwritable_folder(hanse: Hanse, job: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    said = hanse("run", job, "--out", "file/runs")
    assert said.code == 5
    assert "file/runs" in said.err
    assert "Traceback" not in said.err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that hold for this user")
def test_a_folder_without_permission(hanse: Hanse, job: Path, tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    said = hanse("run", job, "--out", "shut")
    assert said.code == 5
    assert "--out" in said.err


def test_a_name_that_can_be_no_folder(hanse: Hanse, job: Path) -> None:
    said = hanse("run", job, "--name", "a/b")
    assert said.code == 5
    assert "can't be a run's name" in said.err
