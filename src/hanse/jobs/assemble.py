"""From a job to a simulation: every part built, all problems gathered, and the complete job written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hanse.core.errors import HanseError, SettingError
from hanse.data.dataset import Dataset
from hanse.data.federated import FederatedDataset
from hanse.data.split import Split
from hanse.jobs.annotations import settings_of
from hanse.jobs.build import FAILED, Builder, shown
from hanse.jobs.job import BaselineName, Job
from hanse.jobs.own_modules import importable, own_files
from hanse.jobs.registry import find
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.selection import Population
from hanse.rounds.settings import EvaluateSettings, RoundSettings, StopSettings
from hanse.simulation.checks import check_simulation
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.trainers.auto import TrainerSettings

DEFAULT_TEST = 0.2
"""What clients keep back for testing where neither the job nor an official test set says otherwise."""


@dataclass(frozen=True, kw_only=True)
class BuiltJob:
    """A job, ready to run.

    Args:
      simulation: What to run; its `job` is the complete job.
      baselines: What to compare the federated model with.
      own_files: The user's own modules that it uses, below `folder`.
      folder: Where relative paths start and own modules lie.
    """

    simulation: Simulation
    baselines: tuple[BaselineName, ...] = ()
    own_files: tuple[Path, ...] = ()
    folder: Path | None = None


def build_simulation(job: Job) -> Simulation:
    """The simulation that a job describes; see `build_job`."""
    return build_job(job).simulation


def build_job(job: Job) -> BuiltJob:
    """Build every part of a job, load its data and try the parts on each other; nothing is run.

    Raises:
      HanseError: What is wrong, all of it at once.
    """
    with importable(job.folder):
        return _Assembly(job).built()


class _Assembly:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._builder = Builder(folder=job.folder)
        self._table: dict[str, Any] = {}
        self._split_given = False

    def built(self) -> BuiltJob:
        values, builder = self._job.values, self._builder
        self._table = {key: getattr(values, key) for key in ("name", "rounds", "seed", "min_clients", "baselines")}
        data, task = self._choose("data"), self._choose("task")
        strategy = self._choose("strategy")
        cohort = self._cohort(strategy)
        settings = self._settings(cohort)
        pipeline = self._pipeline(strategy)
        engine = self._engine()
        dataset = FAILED if data is FAILED else self._federation(data)
        if FAILED not in (task, dataset):
            task = builder.attempt(lambda: bind_task(task, dataset), "task")
        if FAILED not in (cohort, dataset):
            builder.attempt(lambda: cohort.check(Population(dataset.clients, dataset.sizes)), "cohort")
        builder.raise_problems(self._job.source)
        simulation = Simulation(
            dataset=dataset,
            task=task,
            strategy=strategy,
            pipeline=pipeline,
            settings=settings,
            engine=engine,
            job=self._table,
        )
        builder.attempt(lambda: check_simulation(simulation), "")
        builder.raise_problems(self._job.source)
        return BuiltJob(
            simulation=simulation,
            baselines=tuple(values.baselines),
            own_files=own_files(self._job.folder),
            folder=self._job.folder,
        )

    def _choose(self, kind: Any) -> Any:
        value = getattr(self._job.values, kind)
        if kind == "data":
            return self._data(value)
        built, self._table[kind] = self._builder.choose(kind, value, kind)
        return built

    def _data(self, value: str | Mapping[str, Any]) -> Any:
        """The data set, and beside it in the job the partition and the split, which are built later."""
        table = {"use": value} if isinstance(value, str) else dict(value)
        own = {key: item for key, item in table.items() if key not in ("partition", "split", "data_dir")}
        folder = self._job.data_dir or table.get("data_dir")
        if folder is not None and self._takes_data_dir(table.get("use")):
            own["data_dir"] = str(folder) if isinstance(folder, Path) else folder
        built, self._table["data"] = self._builder.choose("data", own, "data")
        partition, split = self._partitioner(table), self._split(table)
        if built is FAILED or partition is FAILED or split is FAILED:
            return FAILED
        return built, partition, split

    def _takes_data_dir(self, use: object) -> bool:
        if not isinstance(use, str):
            return False
        try:
            return "data_dir" in settings_of(find("data", use, where="data", folder=self._job.folder))
        except HanseError:
            return False  # said where the data set is built

    def _partitioner(self, table: Mapping[str, Any]) -> Any:
        if "partition" not in table:
            return None
        built, self._table["data"]["partition"] = self._builder.choose(
            "partition", table["partition"], "data.partition"
        )
        return built

    def _split(self, table: Mapping[str, Any]) -> Any:
        if "split" not in table:
            return None
        built, self._table["data"]["split"] = self._builder.fill(Split, table["split"], "data.split")
        return built

    def _federation(self, data: tuple[Any, Any, Any]) -> Any:
        dataset, partition, split = data
        seed, builder = self._job.values.seed, self._builder
        if isinstance(dataset, FederatedDataset):
            if partition is not None or split is not None:
                what = "partition" if partition is not None else "split"
                builder.problems.append(
                    SettingError(
                        f"data.{what}", "the data comes per client already, so this has no effect", hint="leave it out"
                    )
                )
                return FAILED
            return dataset
        if not isinstance(dataset, Dataset):
            wanted = "a Dataset or a FederatedDataset"
            builder.problems.append(SettingError("data.use", f"made {type(dataset).__name__}; wanted {wanted}"))
            return FAILED
        if partition is None:
            known = ", ".join(dataset.groups)
            natural = f'; or {{ use = "natural", column = "…" }} by one of: {known}' if known else ""
            hint = f'for example: partition = {{ use = "iid", clients = 10 }}{natural}'
            builder.problems.append(SettingError("data.partition", "missing; who holds what?", hint=hint))
            return FAILED
        shared_out = builder.attempt(lambda: partition(dataset, seed), "data.partition")
        if shared_out is FAILED:
            return FAILED
        chosen = split or self._default_split(dataset, has_own_test=shared_out.test_rows is not None)
        _, self._table["data"]["split"] = builder.fill(Split, vars(chosen), "data.split")
        return builder.attempt(lambda: FederatedDataset.partition(dataset, shared_out, split=chosen, seed=seed), "data")

    def _default_split(self, dataset: Dataset, *, has_own_test: bool) -> Split:
        measured_anyway = dataset.test is not None and not self._job.values.baselines
        return Split() if has_own_test or measured_anyway else Split(test=DEFAULT_TEST)

    def _cohort(self, strategy: Any) -> Any:
        value = self._job.values.cohort
        if value is None:
            value = getattr(strategy, "default_cohort", "everyone")
        built, self._table["cohort"] = self._builder.choose("cohort", value, "cohort")
        return built

    def _settings(self, cohort: Any) -> Any:
        values, builder = self._job.values, self._builder
        evaluate, self._table["evaluate"] = builder.fill(EvaluateSettings, values.evaluate, "evaluate")
        stop, self._table["stop"] = builder.fill(StopSettings, values.stop, "stop")
        self._check_baselines(evaluate)
        rounds = builder.attempt(
            lambda: RoundSettings(rounds=values.rounds, seed=values.seed, min_clients=values.min_clients), ""
        )
        if FAILED in (cohort, evaluate, stop, rounds):
            return FAILED
        return replace(rounds, cohort=cohort, evaluate=evaluate, stop=stop)

    def _check_baselines(self, evaluate: Any) -> None:
        if self._job.values.baselines and evaluate is not FAILED and evaluate.clients in ("none", "cohort"):
            self._builder.problems.append(
                SettingError(
                    "evaluate.clients",
                    f"got {shown(evaluate.clients)}; baselines are compared on clients' held-out examples",
                    hint='use "auto", "all" or a number, or leave baselines out',
                )
            )

    def _pipeline(self, strategy: Any) -> Any:
        weighting = getattr(strategy, "weighting", "examples")
        built, self._table["pipeline"] = self._builder.fill(
            Pipeline, self._job.values.pipeline, "pipeline", given={"weighting": weighting}
        )
        return built

    def _engine(self) -> Any:
        values, builder = self._job.values, self._builder
        trainer, self._table["trainer"] = builder.fill(TrainerSettings, values.trainer, "trainer")
        given = {} if trainer is FAILED else {"trainer": trainer}
        built, self._table["simulation"] = builder.fill(
            EngineSettings, values.simulation, "simulation", given=given or {"trainer": None}
        )
        return built
