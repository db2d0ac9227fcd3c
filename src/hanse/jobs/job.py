"""`Job`: what a job file says, read and checked for its shape; `assemble` makes a simulation of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hanse.core.errors import HanseError, JobError, JobProblems, SettingError, did_you_mean
from hanse.jobs.build import shown

BaselineName = Literal["local", "pooled"]
Choice = str | dict[str, Any]
"""A table with `use`, or a name as short for one."""


class JobFile(BaseModel):
    """The top level of a job file; inside, the tables are checked against what their `use` names.

    Args:
      name: The run's name; its folder is called so.
      rounds: Rounds to run, ≥ 1.
      seed: Of all reproducible randomness.
      min_clients: A round with fewer usable updates is abandoned, ≥ 1.
      baselines: What the federated model is compared with on clients' held-out examples: ``"local"``, each client
        alone; ``"pooled"``, all data in one place.
      data: The data set, and who holds what: `use`, its settings, `partition`, `split`.
      task: What is learned.
      strategy: How.
      cohort: Who trains in a round; everyone, unless the strategy says otherwise.
      evaluate: When and where models are measured.
      stop: When to stop before the last round.
      pipeline: What happens to updates on their way up, `stages` and `aggregator`, and to the model on its way down,
        `broadcast`.
      privacy: What is promised to clients: `unit`, `mechanism` and `budget`.
      trainer: How local work is run; a string is short for a table with `use` alone.
      simulation: How the run is simulated: `workers`, `engine`, `address` and `start_method`; and who
        in it has no time for all of its work, `stragglers`, and how fast they are, `devices`.
      federation: How slow and lost sites are dealt with: in a real federation, and where simulated clients have
        devices.
      attack: Hostile clients in a simulation: `use`, what it takes, and `members`.
      sweep: What `hanse sweep` varies: `grid`, `random`, `draws` and `seeds`. All else runs the job as it stands.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = "run"
    rounds: int
    seed: int = 0
    min_clients: int = 1
    baselines: list[BaselineName] = []
    data: Choice
    task: Choice
    strategy: Choice
    cohort: Choice | None = None
    evaluate: dict[str, Any] = {}
    stop: dict[str, Any] = {}
    pipeline: dict[str, Any] = {}
    privacy: dict[str, Any] = {}
    trainer: str | dict[str, Any] = {}
    simulation: dict[str, Any] = {}
    federation: dict[str, Any] = {}
    attack: dict[str, Any] = {}
    sweep: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, read.

    Args:
      values: What it says.
      folder: Where relative paths start and where the user's own modules lie; None for neither.
      source: What to call it in messages.
      data_dir: Folder of data sets, in place of the one that the job names.
    """

    values: JobFile
    folder: Path | None = None
    source: str = "the job"
    data_dir: Path | None = None


CODE = "code"
"""Where a run folder keeps copies of the user's own modules."""


def load_job(
    path: Path | str, overrides: Iterable[str] = (), *, folder: Path | None = None, data_dir: Path | None = None
) -> Job:
    """Read a job file.

    Args:
      path: The TOML file.
      overrides: ``a.b.c=value`` each; the value is TOML, or else a string.
      folder: Where relative paths start and own modules lie; by default the file's own folder, and for the
        job of a run, which has copies of them, the run's ``code``.
      data_dir: Folder of data sets, in place of the one that the job names.

    Raises:
      JobError: The file is missing, is not TOML, or says what no job can say; all problems at once.
    """
    file = Path(path)
    values = _read(file)
    for override in overrides:
        apply_override(values, override)
    home = folder or _home(file)
    return job_from_values(values, folder=home.resolve(), source=f"`{file}`", data_dir=data_dir)


def _home(file: Path) -> Path:
    from hanse.rounds.run_folder import JOURNAL  # brings SQLAlchemy, which a job alone does not need

    copies = file.parent / CODE
    return copies if copies.is_dir() and (file.parent / JOURNAL).is_file() else file.parent


def job_from_values(
    values: Mapping[str, Any], *, folder: Path | None = None, source: str = "the job", data_dir: Path | None = None
) -> Job:
    """A job from plain values, as they stand in a job file; other arguments as in `Job`.

    Raises:
      JobError: Values that no job can have.
    """
    try:
        checked = JobFile.model_validate(dict(values))
    except ValidationError as error:
        problems = [_sentence(problem) for problem in error.errors()]
        raise problems[0] if len(problems) == 1 else JobProblems(problems, source=source) from None
    return Job(values=checked, folder=folder, source=source, data_dir=None if data_dir is None else data_dir.resolve())


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one key of nested tables, in place.

    >>> values = {"strategy": "fedprox"}
    >>> apply_override(values, "strategy.mu=0.1"); values
    {'strategy': {'use': 'fedprox', 'mu': 0.1}}

    Raises:
      JobError: No ``key=value``, or the key goes through something that is no table.
    """
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise JobError(f"--set {override}: wanted key=value", hint="for example: --set strategy.mu=0.1")
    set_setting(values, parts, parse_value(text.strip()), hint=f"--set {override}")


def set_setting(values: dict[str, Any], parts: Sequence[str], value: Any, *, hint: str | None = None) -> None:
    """Set one setting of nested tables, in place; tables on the way are made, and a name becomes a table with `use`.

    Args:
      values: The tables.
      parts: The setting's path.
      value: Its value.
      hint: Of the error.

    Raises:
      SettingError: The path goes through something that is no table.
    """
    table = values
    for depth, part in enumerate(parts[:-1]):
        inner = table.setdefault(part, {})
        if isinstance(inner, str):
            inner = table[part] = {"use": inner}
        if not isinstance(inner, dict):
            raise SettingError(".".join(parts[: depth + 1]), f"is {shown(inner)} and no table", hint=hint)
        table = inner
    table[parts[-1]] = value


def parse_value(text: str) -> Any:
    """A value given on the command line: TOML, or else a string.

    >>> parse_value("0.3"), parse_value("[1, 2]"), parse_value("fedavg")
    (0.3, [1, 2], 'fedavg')
    """
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return found["value"] if set(found) == {"value"} else text


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise JobError(f"there is no job file `{file}`", hint=_nearby(file)) from None
    except IsADirectoryError:
        raise JobError(
            f"`{file}` is a folder", hint=f"name the job file in it, for example {file / 'job.toml'}"
        ) from None
    except OSError as error:
        raise JobError(f"`{file}` can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"`{file}` is not UTF-8 text (byte {error.start})", hint="a job file is TOML") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JobError(
            f"`{file}` is not valid TOML: {_lower(str(error))}", hint="see https://toml.io for its rules"
        ) from None


def _nearby(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"there is no folder `{folder}` either"
    names = [path.name for path in folder.glob("*.toml")]
    return did_you_mean(file.name, names) if names else "make one with: hanse new my-federation"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


_WANTED: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "dict_type": "a table",
    "list_type": "a list",
}


def _sentence(problem: Any) -> HanseError:
    """One problem that pydantic found, in the words of all other settings' problems."""
    place = [part for part in problem["loc"] if part not in ("str", "dict[str,any]")]
    where = str(place[0]) + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place[1:])
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return SettingError(where, "there is no such setting", hint=did_you_mean(where, JobFile.model_fields))
    if kind == "missing":
        return SettingError(where, "missing; every job needs it")
    wanted = _WANTED.get(kind) or str(problem["msg"]).removeprefix("Input should be ")
    return SettingError(where, f"got {shown(given)}; wanted {wanted}")
