"""From a job to a simulation: every part built, all problems gathered, and the complete job written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hanse.jobs.build import FAILED, Builder
from hanse.jobs.job import BaselineName, Job
from hanse.jobs.job_data import DataBuilder
from hanse.jobs.own_modules import importable, own_files
from hanse.jobs.parts import PartsBuilder
from hanse.simulation.checks import check_simulation
from hanse.simulation.parts import Simulation, bind_task, population_of


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
        return _built(job, Builder(folder=job.folder))


def _built(job: Job, builder: Builder) -> BuiltJob:
    data, others = DataBuilder(job, builder), PartsBuilder(job, builder)
    chosen = data.chosen()
    parts = others.built()
    dataset = data.shared_out(chosen)
    task = others.task
    if FAILED not in (task, dataset):
        task = builder.attempt(lambda: bind_task(task, dataset), "task")
    if FAILED not in (others.cohort, dataset):
        builder.attempt(lambda: others.cohort.check(population_of(dataset)), "cohort")
    builder.raise_problems(job.source)
    simulation = Simulation(
        dataset=dataset,
        task=task,
        strategy=parts.strategy,
        pipeline=parts.pipeline,
        settings=parts.settings,
        engine=parts.engine,
        privacy=parts.privacy,
        stragglers=parts.stragglers,
        devices=parts.devices,
        federation=parts.federation,
        attack=parts.attack,
        job=others.table | {"data": data.table},
    )
    builder.attempt(lambda: check_simulation(simulation), "")
    builder.raise_problems(job.source)
    return BuiltJob(
        simulation=simulation,
        baselines=parts.baselines,
        own_files=own_files(job.folder),
        folder=job.folder,
    )
