from pathlib import Path

import pytest

from hanse.core.errors import HanseError, JobError, JobProblems, SettingError
from hanse.jobs.job import apply_override, job_from_values, load_job

LEAST = 'rounds = 3\ndata = "digits"\ntask = "classification"\nstrategy = "fedavg"\n'


def write(folder: Path, text: str, name: str = "job.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_the_least_job(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, LEAST))
    assert (job.values.name, job.values.rounds, job.values.seed, job.values.min_clients) == ("run", 3, 0, 1)
    assert job.values.baselines == []
    assert job.folder == tmp_path.resolve()


def test_overrides_are_toml_or_else_strings(tmp_path: Path) -> None:
    file = write(tmp_path, LEAST)
    sets = ["strategy.mu=0.1", "strategy.local.epochs=5", "name=a b", 'baselines=["local"]', "rounds = 7"]
    job = load_job(file, sets)
    assert job.values.strategy == {"use": "fedavg", "mu": 0.1, "local": {"epochs": 5}}
    assert (job.values.name, job.values.baselines, job.values.rounds) == ("a b", ["local"], 7)


@pytest.mark.parametrize("override", ["strategy.mu", "=3", "a..b=3", ""])
def test_an_override_without_key_or_value(override: str) -> None:
    with pytest.raises(JobError, match="wanted key=value"):
        apply_override({}, override)


def test_an_override_through_a_number() -> None:
    with pytest.raises(SettingError, match="rounds: is 3 and no table"):
        apply_override({"rounds": 3}, "rounds.more=1")


def test_several_lines_of_toml_are_no_value() -> None:
    values: dict[str, object] = {}
    apply_override(values, "name=1\nrounds = 3")
    assert values == {"name": "1\nrounds = 3"}


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, LEAST, "hospitals.toml")
    with pytest.raises(JobError, match="there is no job file") as caught:
        load_job(tmp_path / "hospital.toml")
    assert "did you mean `hospitals.toml`?" in str(caught.value)
    with pytest.raises(JobError, match="hanse new"):
        load_job(tmp_path.parent / f"{tmp_path.name}" / ".." / tmp_path.name / ".." / "job-that-is-not-there.toml")
    with pytest.raises(JobError, match="there is no folder"):
        load_job(tmp_path / "nowhere" / "job.toml")
    with pytest.raises(JobError, match="is a folder"):
        load_job(tmp_path)


def test_broken_toml_is_a_sentence_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"not valid TOML: .*line 2, column 10"):
        load_job(write(tmp_path, "name = 'x'\nrounds = \n"))
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(JobError, match="not UTF-8"):
        load_job(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("line", "where", "words"),
    [
        ("ruonds = 3\n", "ruonds", "did you mean `rounds`?"),
        ("seed = 'x'\n", "seed", 'got "x"; wanted a whole number'),
        ("min_clients = 1.5\n", "min_clients", "wanted a whole number"),
        ("name = 3\n", "name", "got 3; wanted a string"),
        ("evaluate = 3\n", "evaluate", "got 3; wanted a table"),
        ("cohort = 3\n", "cohort", "wanted"),
        ('baselines = ["lokal"]\n', "baselines[0]", "'local' or 'pooled'"),
    ],
)
def test_the_top_level_is_checked(tmp_path: Path, line: str, where: str, words: str) -> None:
    with pytest.raises(HanseError) as caught:
        load_job(write(tmp_path, LEAST + line))
    error = caught.value
    found = error.problems if isinstance(error, JobProblems) else (error,)
    assert {p.where for p in found if isinstance(p, SettingError)} == {where}
    assert words in str(error)


def test_everything_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(JobProblems) as caught:
        job_from_values({"name": "x"})
    missing = {p.where for p in caught.value.problems if isinstance(p, SettingError)}
    assert missing == {"rounds", "data", "task", "strategy"}


def test_the_job_of_a_run_finds_the_copies_of_its_modules(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'rounds = 1\n[data]\nuse = "digits"\n[task]\nuse = "classification"\n[strategy]\nuse = "fedavg"\n'
    )
    (tmp_path / "code").mkdir()
    assert load_job(tmp_path / "job.toml").folder == tmp_path.resolve()  # any project may have a folder of that name
    (tmp_path / "journal.sqlite").touch()
    assert load_job(tmp_path / "job.toml").folder == (tmp_path / "code").resolve()
