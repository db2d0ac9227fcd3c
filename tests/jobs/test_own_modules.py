import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanse.core.errors import SettingError, TaskError
from hanse.jobs.own_modules import import_own, importable, own_files


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mine"):
            del sys.modules[name]
    assert sys.path == path


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_a_module_beside_the_job_is_found(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "import mine_helper\nVALUE = mine_helper.VALUE\n")
    write(tmp_path, "mine_helper.py", "VALUE = 3\n")
    assert import_own("mine", tmp_path, where="task").VALUE == 3


def test_two_jobs_may_each_have_a_module_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path / "a", "mine.py", "VALUE = 'a'\n")
    write(tmp_path / "b", "mine.py", "VALUE = 'b'\n")
    first = import_own("mine", tmp_path / "a", where="task")
    assert first.VALUE == "a"
    assert import_own("mine", tmp_path / "b", where="task").VALUE == "b"
    assert import_own("mine", tmp_path / "a", where="task").VALUE == "a"


def test_the_same_file_is_imported_once(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "VALUE = object()\n")
    assert import_own("mine", tmp_path, where="task") is import_own("mine", tmp_path, where="task")


def test_a_package_beside_the_job_is_found(tmp_path: Path) -> None:
    write(tmp_path, "mine_package/__init__.py", "")
    write(tmp_path, "mine_package/inner.py", "VALUE = 5\n")
    assert import_own("mine_package.inner", tmp_path, where="task").VALUE == 5


def test_an_installed_module_is_never_replaced(tmp_path: Path) -> None:
    write(tmp_path, "json.py", "VALUE = 1\n")
    with pytest.raises(SettingError, match=r"`json\.py` beside the job file has the name of another module"):
        import_own("json", tmp_path, where="task")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = nothing\n", r"NameError: name 'nothing' is not defined \(line 2\)"),
        ("x = 1\n\ndef f(:\n", r"SyntaxError: .* \(line 3\)"),
    ],
)
def test_a_module_that_fails_is_a_sentence_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, "mine_bad.py", text)
    with pytest.raises(TaskError, match=words):
        import_own("mine_bad", tmp_path, where="task")
    assert "mine_bad" not in sys.modules


def test_a_missing_module_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError):
        import_own("mine_nowhere", tmp_path, where="task")
    with pytest.raises(ModuleNotFoundError):
        import_own("mine_nowhere", None, where="task")


def test_files_of_own_modules(tmp_path: Path) -> None:
    file = write(tmp_path, "mine_files.py", "import mine_other\n")
    other = write(tmp_path, "mine_other.py", "")
    write(tmp_path, "unused.py", "")
    import_own("mine_files", tmp_path, where="task")
    assert own_files(tmp_path) == (file.resolve(), other.resolve())
    assert own_files(None) == ()


def test_importable_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    with importable(tmp_path):
        assert sys.path[-1] == str(tmp_path)
        with importable(tmp_path):  # once is enough
            assert sys.path.count(str(tmp_path)) == 1
    assert str(tmp_path) not in sys.path
