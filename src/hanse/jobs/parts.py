"""`JobParts`: everything that a job describes but the data; what a coordinator has, and what its sites have alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.attacks.members import Members
from hanse.core.errors import SettingError
from hanse.core.protocols import Strategy, Task
from hanse.jobs.build import FAILED, Admit, Builder, shown
from hanse.jobs.job import BaselineName, Job
from hanse.jobs.own_modules import importable
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.pace import check_pace
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.settings import EvaluateSettings, FederationSettings, RoundSettings, StopSettings
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.clock.devices import Devices
from hanse.simulation.engine import EngineSettings
from hanse.simulation.stragglers import Stragglers
from hanse.tasks.bindable import BindableTask
from hanse.trainers.auto import TrainerSettings


@dataclass(frozen=True, kw_only=True)
class JobParts:
    """A job's parts that need no data.

    Args:
      task: What is learned; where it has `bind`, it still has to learn what the data looks like.
      strategy: Update rule and local work.
      pipeline: From single updates to one aggregate.
      settings: What the round loop is told.
      privacy: What is promised to clients; None where nothing is.
      engine: How to simulate, and in it how local work is run.
      stragglers: Who in a simulation has no time for all of its work.
      devices: How fast a simulation's clients are, and when they are there; None where nobody takes any time.
      federation: How slow and lost sites are dealt with, over the network and where simulated clients have devices.
      baselines: What to compare the federated model with.
      attack: What hostile clients of a simulation do, and who they are; None where all are honest.
      table: The job as plain values, every setting of these parts and `data` as the job has it.
    """

    task: Task | BindableTask
    strategy: Strategy[Any]
    pipeline: Pipeline
    settings: RoundSettings
    privacy: PrivacySettings | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
    stragglers: Stragglers = field(default_factory=Stragglers)
    devices: Devices | None = None
    federation: FederationSettings = field(default_factory=FederationSettings)
    baselines: tuple[BaselineName, ...] = ()
    attack: PlacedAttack | None = None
    table: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trainer(self) -> TrainerSettings:
        """How local work is run."""
        return self.engine.trainer


def build_parts(job: Job, *, admit: Admit | None = None) -> JobParts:
    """Build every part of a job that needs no data; no data is read.

    Args:
      job: The job.
      admit: Asked about everything that the job names, before it is imported; None admits everything.

    Raises:
      HanseError: What is wrong, all of it at once.
    """
    with importable(job.folder):
        builder = Builder(folder=job.folder, admit=admit)
        parts = PartsBuilder(job, builder)
        built = parts.built()
        builder.raise_problems(job.source)
        found: JobParts = replace(built, table=parts.table)
        return found


class PartsBuilder:
    """Builds a job's parts with somebody's `Builder`, in which problems gather.

    `table`, `task` and `cohort` are what was built so far, each for itself.

    Args:
      job: The job.
      builder: Builds and gathers.
    """

    def __init__(self, job: Job, builder: Builder) -> None:
        self._job = job
        self._builder = builder
        values = job.values
        self.table: dict[str, Any] = {
            key: getattr(values, key) for key in ("name", "rounds", "seed", "min_clients", "baselines")
        }
        self.task: Any = FAILED
        self.cohort: Any = FAILED
        self.table["data"] = values.data  # so that it keeps its place; whoever builds it puts what it was made of here

    def built(self) -> Any:
        """The parts; `FAILED` where one could not be built."""
        self.task, strategy = self._choose("task"), self._choose("strategy")
        self.cohort = self._cohort(strategy)
        settings = self._settings(self.cohort)
        pipeline = self._pipeline(strategy)
        self._check_comparable(pipeline)
        privacy = self._privacy()
        engine, stragglers, devices = self._engine(), self._stragglers(), self._devices()
        federation, self.table["federation"] = self._builder.fill(
            FederationSettings, self._job.values.federation, "federation"
        )
        if FAILED not in (self.cohort, federation):
            self._builder.attempt(lambda: check_pace(self.cohort, federation), "")
        attack = self._attack()
        if FAILED in (
            self.task,
            strategy,
            settings,
            pipeline,
            privacy,
            engine,
            stragglers,
            devices,
            federation,
            attack,
        ):
            return FAILED
        return JobParts(
            task=self.task,
            strategy=strategy,
            pipeline=pipeline,
            settings=settings,
            privacy=privacy,
            engine=engine,
            stragglers=stragglers,
            devices=devices,
            federation=federation,
            baselines=tuple(self._job.values.baselines),
            attack=attack,
        )

    def _choose(self, kind: Any) -> Any:
        built, self.table[kind] = self._builder.choose(kind, getattr(self._job.values, kind), kind)
        return built

    def _cohort(self, strategy: Any) -> Any:
        value = self._job.values.cohort
        if value is None:
            value = getattr(strategy, "default_cohort", "everyone")
        built, self.table["cohort"] = self._builder.choose("cohort", value, "cohort")
        return built

    def _settings(self, cohort: Any) -> Any:
        values, builder = self._job.values, self._builder
        evaluate, self.table["evaluate"] = builder.fill(EvaluateSettings, values.evaluate, "evaluate")
        stop, self.table["stop"] = builder.fill(StopSettings, values.stop, "stop")
        self._check_baselines(evaluate)
        rounds = builder.attempt(
            lambda: RoundSettings(rounds=values.rounds, seed=values.seed, min_clients=values.min_clients), ""
        )
        if FAILED in (cohort, evaluate, stop, rounds):
            return FAILED
        return replace(rounds, cohort=cohort, evaluate=evaluate, stop=stop)

    def _check_baselines(self, evaluate: Any) -> None:
        if self._job.values.baselines and self._job.values.privacy:
            self._builder.problems.append(
                SettingError(
                    "baselines",
                    "are compared on clients' held-out examples, which a private run does not measure",
                    hint="leave baselines out, or run the job without [privacy] to see what privacy costs",
                )
            )
            return
        if self._job.values.baselines and evaluate is not FAILED and evaluate.clients in ("none", "cohort"):
            self._builder.problems.append(
                SettingError(
                    "evaluate.clients",
                    f"got {shown(evaluate.clients)}; baselines are compared on clients' held-out examples",
                    hint='use "auto", "all" or a number, or leave baselines out',
                )
            )

    def _check_comparable(self, pipeline: Any) -> None:
        if self._job.values.baselines and pipeline is not FAILED and pipeline.hides_replies:
            self._builder.problems.append(
                SettingError(
                    "baselines",
                    f"are compared on each client's held-out examples, and aggregator "
                    f"`{type(pipeline.aggregator).__name__}` adds up what clients measure, so that nobody sees one's",
                    hint='leave baselines out, or run the job with aggregator = { use = "sum" } for them',
                )
            )

    def _pipeline(self, strategy: Any) -> Any:
        weighting = getattr(strategy, "weighting", "examples")
        built, self.table["pipeline"] = self._builder.fill(
            Pipeline,
            self._job.values.pipeline,
            "pipeline",
            given={"weighting": weighting, "mechanism": None, "example_privacy": None},
        )
        return built

    def _privacy(self) -> Any:
        if not self._job.values.privacy:
            return None
        built, self.table["privacy"] = self._builder.fill(PrivacySettings, self._job.values.privacy, "privacy")
        return built

    def _attack(self) -> Any:
        given = self._job.values.attack
        if not given:
            return None
        own = {key: value for key, value in given.items() if key != "members"}
        attack, table = self._builder.choose("attack", own, "attack")
        members, told = self._builder.fill(Members, given.get("members", {}), "attack.members")
        self.table["attack"] = {**table, "members": told}
        return FAILED if FAILED in (attack, members) else PlacedAttack(attack=attack, members=members)

    def _engine(self) -> Any:
        values, builder = self._job.values, self._builder
        how = {"use": values.trainer} if isinstance(values.trainer, str) else values.trainer
        trainer, self.table["trainer"] = builder.fill(TrainerSettings, how, "trainer")
        given = {} if trainer is FAILED else {"trainer": trainer}
        simulation = {key: value for key, value in values.simulation.items() if key not in ("stragglers", "devices")}
        if simulation.get("engine") == "ray" or ("address" in simulation and "engine" not in simulation):
            simulation = {"workers": 0, **simulation}  # who asks for a cluster wants all of it
        built, self.table["simulation"] = builder.fill(
            EngineSettings, simulation, "simulation", given=given or {"trainer": None}
        )
        return built

    def _stragglers(self) -> Any:
        given = self._job.values.simulation.get("stragglers", {})
        built, table = self._builder.fill(Stragglers, given, "simulation.stragglers")
        if given:
            self.table["simulation"] = {**self.table["simulation"], "stragglers": table}
        return built

    def _devices(self) -> Any:
        given = self._job.values.simulation.get("devices")
        if given is None:
            return None
        built, table = self._builder.fill(Devices, given, "simulation.devices")
        self.table["simulation"] = {**self.table["simulation"], "devices": table}
        return built
