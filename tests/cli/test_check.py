from pathlib import Path

from tests.cli.conftest import JOB, Hanse


def test_check_says_what_a_job_would_cost_and_runs_nothing(hanse: Hanse, job: Path) -> None:
    said = hanse("check", job, "--set", 'baselines=["local"]')
    assert said.code == 0
    assert "is a job that can run" in said.out
    for words in ("42", "3, of which 3 train in a round", "504 B down, 504 B up", "local: as many rounds again"):
        assert words in said.out
    assert not Path("runs").exists()


def test_check_says_where_nothing_is_measured(hanse: Hanse, job: Path) -> None:
    said = hanse("check", job, "--set", "data.split.test=0.0")
    assert "nothing: no examples are kept back" in said.out


def test_check_gathers_all_problems(hanse: Hanse, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(JOB.replace("mu =", "mo =").replace("clients = 3", "clients = 0").replace("wine", "whine"))
    said = hanse("check", file)
    assert said.code == 2
    assert "has 3 problems" in said.err
    for where in ("strategy.mo", "data.partition.clients", "data.use"):
        assert where in said.err


def test_check_gives_the_central_test_set(hanse: Hanse, job: Path, tmp_path: Path) -> None:
    (tmp_path / "central.py").write_text(
        "import numpy as np\nfrom hanse import Dataset, Examples\n"
        "def sets():\n    e = Examples(np.eye(6, dtype=np.float32), np.arange(6) % 2)\n"
        "    return Dataset(name='c', train=e, test=e)\n",
        encoding="utf-8",
    )
    said = hanse("check", job, "--set", "data.use=central:sets")
    assert said.code == 0, said.err
    assert "6 central test examples" in said.out
