"""`Simulation`: the parts of a simulated run, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

from hanse.core.local_work import LocalWork
from hanse.core.protocols import Strategy, Task
from hanse.data.federated import FederatedDataset
from hanse.data.schema import DataSchema
from hanse.data.summary import label_counts
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settle import check_timely, settle_privacy
from hanse.rounds.privacy.settled import SettledPrivacy
from hanse.rounds.secure_sum import discreet
from hanse.rounds.selection import Population
from hanse.rounds.settings import FederationSettings, RoundSettings
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.clock.devices import Devices
from hanse.simulation.engine import EngineSettings
from hanse.simulation.stragglers import Stragglers


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Everything that a simulated run is made of, ready to run.

    Args:
      dataset: Who holds what.
      task: What is learned, bound to the data.
      strategy: Update rule and local work.
      pipeline: From single updates to one aggregate.
      settings: What the round loop is told.
      engine: How to simulate.
      privacy: What is promised to clients; None where nothing is.
      stragglers: Who has no time for all of its work.
      devices: How fast clients are, and when they are there; None where nobody takes any time.
      federation: What is done about those that are slow, where they have devices.
      attack: What hostile clients do, and who they are; None where all are honest.
      job: The job as plain values, for the record.
    """

    dataset: FederatedDataset
    task: Task
    strategy: Strategy[Any]
    pipeline: Pipeline
    settings: RoundSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    privacy: PrivacySettings | None = None
    stragglers: Stragglers = field(default_factory=Stragglers)
    devices: Devices | None = None
    federation: FederationSettings = field(default_factory=FederationSettings)
    attack: PlacedAttack | None = None
    job: Mapping[str, object] = field(default_factory=dict)

    def population(self) -> Population:
        """Everybody who may be selected; how many examples they hold is not known where updates are hidden."""
        population = population_of(self.dataset)
        return population.unsized() if self.pipeline.hides_replies else population

    @cached_property
    def settled_privacy(self) -> SettledPrivacy | None:
        """The noise that a private run adds, and what it costs; None where nothing is promised.

        Raises:
          PipelineError: The pipeline's parts do not go together with the mechanism.
          PrivacyError: Something else in the job tells of clients, or the budget can't be kept.
        """
        if self.privacy is None:
            return None
        if self.devices is not None:
            check_timely(self.privacy, self.federation)
        return settle_privacy(
            self.privacy,
            self.pipeline,
            self.settings,
            self.task,
            self.population(),
            prescribed=self.strategy.local_work,
        )

    def settled(self) -> Simulation:
        """The simulation with its pipeline and settings as privacy demands, and as hidden updates do.

        Raises:
          HanseError: As `settled_privacy` does; or clients would be asked what is in no secure sum.
        """
        found = self.settled_privacy
        if found is None:
            settings = discreet(self.pipeline, self.settings)
            return self if settings is self.settings else replace(self, settings=settings)
        settings = discreet(found.pipeline, found.settings)
        return replace(self, pipeline=found.pipeline, settings=settings, privacy=None)

    def local_work(self, round_number: int) -> LocalWork:
        """What clients are asked to do in a round: as the strategy prescribes, and as privacy demands."""
        return self.settled().pipeline.protected(self.strategy.local_work(round_number))


def population_of(dataset: FederatedDataset) -> Population:
    """Everybody who holds a data set's parts, with what a simulation knows of them."""
    classes = dataset.dataset is None or dataset.dataset.target == "classes"
    return Population(dataset.clients, dataset.sizes, cache(partial(label_counts, dataset)) if classes else None)


def bind_task(task: Any, dataset: FederatedDataset) -> Task:
    """The task, bound to the data if it is not yet."""
    bound: Task = task.bind(DataSchema.of(dataset)) if hasattr(task, "bind") else task
    return bound
