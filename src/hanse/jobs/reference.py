"""The reference of the job file, written from the code itself: every name that can be used, and its settings.

    python -m hanse.jobs.reference docs/job-file.md

writes the part of that file below its marker anew.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hanse.attacks.members import Members
from hanse.data.split import Split
from hanse.jobs.annotations import Setting, in_words, seam_of, settings_of, union_members
from hanse.jobs.build import shown
from hanse.jobs.describe import plain
from hanse.jobs.job import JobFile
from hanse.jobs.registry import NAMES, Kind, find
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.budget import Budget
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.settings import EvaluateSettings, FederationSettings, StopSettings
from hanse.simulation.clock.devices import Devices
from hanse.simulation.engine import EngineSettings
from hanse.simulation.stragglers import Stragglers
from hanse.trainers.auto import TrainerSettings

MARKER = "<!-- everything below is written by: python -m hanse.jobs.reference docs/job-file.md -->"

_TITLES: Mapping[Kind, str] = {
    "data": "Data sets: `data`",
    "partition": "Partitioners: `data.partition`",
    "task": "Tasks: `task`",
    "model": "Models: `task.model`",
    "loss": "Losses: `task.loss`, for `regression`",
    "preprocess": "Preprocessing: `task.preprocess`",
    "estimator": "Estimators: `task.estimator`, for `estimator`",
    "strategy": "Strategies: `strategy`",
    "optimizer": "Optimisers: `strategy.local.optimizer`",
    "schedule": "Schedules: `strategy.local.schedule`",
    "correction": "Corrections: `strategy.local.correction`",
    "objective": "Objectives: `strategy.local.objective`",
    "perturbation": "Perturbations: `strategy.local.adversarial` and `evaluate.robust`",
    "stepping": "Local steps: `strategy.local.stepping`",
    "cohort": "Cohorts: `cohort`",
    "staleness": "Staleness weights: `federation.staleness`",
    "graph": "Graphs: `strategy.graph`",
    "aggregator": "Aggregators: `pipeline.aggregator`",
    "rule": "Robust rules: `pipeline.aggregator.rule`, for `robust`",
    "mixer": "Mixing: `pipeline.aggregator.mixing`, for `robust`",
    "attack": "Attacks: `attack`",
    "stage": "Stages: `pipeline.stages`",
    "mechanism": "Mechanisms: `privacy.mechanism`",
}
_FROM_ELSEWHERE: Mapping[object, tuple[str, ...]] = {
    EngineSettings: ("trainer",),
    Pipeline: ("weighting", "mechanism", "example_privacy"),
}
"""Arguments that other tables of a job give."""
_BY_NAME_ONLY: frozenset[Kind] = frozenset({"estimator"})  # described by the packages that they come from


def reference() -> str:
    """All tables of the job file, as Markdown."""
    from hanse.core.local_work import LocalWork

    parts = ["## The top level\n", *_section(JobFile, _top_level())]
    for title, target in (
        ("`data.split`", Split),
        ("`strategy.local`", LocalWork),
        ("`evaluate`", EvaluateSettings),
        ("`stop`", StopSettings),
        ("`pipeline`", Pipeline),
        ("`privacy`", PrivacySettings),
        ("`privacy.budget`", Budget),
        ("`trainer`", TrainerSettings),
        ("`simulation`", EngineSettings),
        ("`simulation.stragglers`", Stragglers),
        ("`simulation.devices`", Devices),
        ("`federation`", FederationSettings),
        ("`attack.members`", Members),
    ):
        settings = {key: s for key, s in settings_of(target).items() if key not in _FROM_ELSEWHERE.get(target, ())}
        parts += [f"## {title}\n", f"{_summary(target)}\n", *_section(target, settings)]
    for kind, title in _TITLES.items():
        parts += [f"## {title}\n", *_names(kind)]
    return "\n".join(parts).rstrip() + "\n"


def main(file: Path) -> None:
    """Write the reference below the marker of a file."""
    head, marker, _ = file.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise SystemExit(f"{file} has no line: {MARKER}")
    file.write_text(f"{head}{MARKER}\n\n{reference()}", encoding="utf-8")


def _top_level() -> dict[str, Setting]:
    empty = inspect.Parameter.empty
    return {
        name: Setting(name, field.annotation, empty if field.is_required() else field.default)
        for name, field in JobFile.model_fields.items()
    }


def _names(kind: Kind) -> Iterator[str]:
    if kind in _BY_NAME_ONLY:
        yield ", ".join(f"`{name}` (`{path.replace(':', '.')}`)" for name, path in NAMES[kind].items()) + "\n"
        return
    for name in sorted(NAMES[kind]):
        target = find(kind, name, where=kind)
        yield f"### `{name}`\n"
        yield f"{_summary(target)}\n"
        yield from _section(target, settings_of(target))


def _section(target: Any, settings: Mapping[str, Setting]) -> Iterator[str]:
    if not settings:
        return
    meanings = arguments_of(inspect.getdoc(target) or "")
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, setting in settings.items():
        cells = (f"`{key}`", _type(setting), _default(setting), meanings.get(key, ""))
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        yield f"| {row} |"
    yield ""


def _type(setting: Setting) -> str:
    members = union_members(setting.annotation)
    if setting.annotation is Any or setting.annotation is inspect.Parameter.empty:
        return "a table with `use`"
    if any(seam_of(member) for member in members):
        return f"{in_words(setting.annotation)}: a name, or a table with `use`"
    return in_words(setting.annotation)


def _default(setting: Setting) -> str:
    if setting.required:
        return "needed"
    value = plain(setting.default, setting.annotation)
    if isinstance(value, dict):
        return f"`{value['use']}`" if "use" in value else "its defaults"
    return "none" if value == "none" else f"`{shown(value)}`"


def _summary(target: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(target) or "").partition("\n\n")[0].split()).replace("``", "`")


def arguments_of(docstring: str) -> dict[str, str]:
    """What the `Args:` section of a docstring says of each argument, on one line each.

    >>> arguments_of("Sum.\\n\\nArgs:\\n  a: One.\\n    Or more.\\n  b: Two.\\n\\nRaises:\\n  X: Never.")
    {'a': 'One. Or more.', 'b': 'Two.'}
    """
    found: dict[str, str] = {}
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", docstring, flags=re.MULTILINE)
    name = ""
    for line in (section[1] if section else "").splitlines():
        start = re.match(r"  (\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2].strip()
        elif name and line.startswith("   "):
            found[name] += f" {line.strip()}"
    return {key: text.replace("``", "`") for key, text in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
