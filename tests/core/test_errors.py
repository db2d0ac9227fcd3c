"""The exception tree: sentences, hints, exit codes, and errors that cross processes."""

from __future__ import annotations

import pickle

import pytest

from hanse.core import errors
from hanse.core.errors import (
    HanseError,
    JobProblems,
    MissingExtraError,
    NonFiniteUpdateError,
    RunInterrupted,
    SettingError,
    UpdateError,
    did_you_mean,
    nearest,
)

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HanseError)]


def test_message_and_hint() -> None:
    assert str(HanseError("it broke", hint="mend it")) == "it broke\n\nhint: mend it"
    assert str(HanseError("it broke")) == "it broke"


def test_setting_error_says_where() -> None:
    error = SettingError("strategy.mu", "must not be negative, got -1", hint="use 0")
    assert str(error) == "strategy.mu: must not be negative, got -1\n\nhint: use 0"
    assert str(SettingError("", "is empty")) == "is empty"


def test_problems_are_told_together() -> None:
    problems = JobProblems([SettingError("a", "is wrong"), HanseError("b", hint="c")], source="job.toml")
    assert str(problems) == "job.toml has 2 problems\n\na: is wrong\n\nb\n\nhint: c"
    assert "1 problem\n" in str(JobProblems([HanseError("x")]))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_kind_is_drawn_in_the_tree_with_its_code(kind: type[HanseError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")
    assert 1 <= kind.exit_code <= 130


def test_codes_are_inherited() -> None:
    assert NonFiniteUpdateError.exit_code == UpdateError.exit_code == 4
    assert RunInterrupted.exit_code == 130


@pytest.mark.parametrize(
    "error",
    [
        HanseError("a", hint="b"),
        SettingError("lr", "must be more than 0", hint="0.1"),
        MissingExtraError("Plots", extra="report"),
        JobProblems([SettingError("a", "is wrong"), HanseError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_crosses_processes_whole(error: HanseError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back).keys() == vars(error).keys()
    if isinstance(error, SettingError):
        assert (back.where, back.problem) == (error.where, error.problem)
    if isinstance(error, JobProblems):
        assert [str(problem) for problem in back.problems] == [str(problem) for problem in error.problems]


def test_nearest_and_did_you_mean() -> None:
    assert nearest("momentun", ["momentum", "lr"]) == "momentum"
    assert nearest("zzz", ["momentum", "lr"]) is None
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", []) == "nothing is known here"
