from pathlib import Path

from tests.cli.conftest import Hanse


def test_a_new_project_runs_as_it_is(hanse: Hanse, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    said = hanse("new", "my federation")
    assert said.code == 0
    assert {path.name for path in Path("my federation").iterdir()} == {"job.toml", "task.py", "README.md", ".gitignore"}
    monkeypatch.chdir("my federation")
    assert hanse("check", "job.toml").code == 0
    ran = hanse("run", "job.toml", "--rounds", 1, "--set", "baselines=[]")
    assert ran.code == 0, ran.err
    assert "my federation  finished" in ran.out
    assert Path("runs/my federation/code/task.py").is_file()
    assert "hanse resume 'my federation'" in Path("README.md").read_text(encoding="utf-8")


def test_a_folder_that_holds_something_is_left_alone(hanse: Hanse, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious", encoding="utf-8")
    said = hanse("new", "full")
    assert said.code == 2
    assert "exists and is not empty" in said.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert hanse("new", "file").code == 2
    assert hanse("new", "file/below").code == 5


def test_an_empty_folder_is_taken(hanse: Hanse, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert hanse("new", "empty").code == 0
    assert 'name = "empty"' in (tmp_path / "empty" / "job.toml").read_text(encoding="utf-8")


def test_a_name_with_quotes_stays_toml(hanse: Hanse) -> None:
    assert hanse("new", 'a "b" $c').code == 0
    assert hanse("check", Path('a "b" $c') / "job.toml").code == 0
