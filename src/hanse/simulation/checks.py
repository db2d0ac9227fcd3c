"""What must fit together before a simulation runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from hanse.core.errors import EmptyClientError, HanseError, JobProblems, PipelineError
from hanse.core.protocols import Personalises, Task
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.rounds.checks import check_seconds, problems_of_parts
from hanse.rounds.number_sums import check_number_sums
from hanse.rounds.secure_sum import check_secure_sum
from hanse.rounds.smaller_model import check_smaller_model
from hanse.simulation.attack.run import check_attack
from hanse.simulation.clock.checks import check_clock
from hanse.simulation.parts import Simulation
from hanse.simulation.robustness import check_robustness
from hanse.trainers.auto import make_trainer

_CHECKED_CLIENTS = 20  # whose examples are tried on the model before a run; the others fail by name, if they do


def check_simulation(simulation: Simulation) -> None:
    """Try the parts on each other, all of them, before anything runs.

    Raises:
      JobProblems: Several things do not fit.
      HanseError: One thing does not fit; in a sentence.
    """
    problems: list[HanseError] = []
    try:
        given = simulation.settled()
    except HanseError as problem:
        problems, given = [problem], replace(simulation, privacy=None)
    parts = given.strategy, given.task, given.pipeline, given.settings, given.population()
    problems += problems_of_parts(*parts, has_root=given.dataset.root is not None)
    for check in (
        _check_seconds,
        _check_trainer,
        _check_stragglers,
        _check_samples,
        check_clock,
        check_attack,
        check_robustness,
    ):
        try:
            check(given)
        except HanseError as problem:
            problems.append(problem)
    if not problems:
        summed = given.pipeline, given.settings, given.task, given.population()
        check_secure_sum(*summed)
        check_number_sums(*summed, held_out=given.dataset.held_out)
    if not problems and given.pipeline.shrinking is not None:
        _check_smaller_model(simulation)
    problems = list({str(problem): problem for problem in problems}.values())  # several checks may meet the same one
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise JobProblems(problems, source="the simulation")


def check_samples(dataset: FederatedDataset, task: Task) -> None:
    """Try the model on a few examples of the first clients.

    Raises:
      EmptyClientError: None of them holds a training example.
      TaskError: Model, loss and data do not fit together.
    """
    for examples in samples(dataset, task):
        task.check(examples.x, examples.y)


def _check_seconds(simulation: Simulation) -> None:
    check_seconds(simulation.settings.cohort, "none" if simulation.devices is None else "simulated")


def _check_trainer(simulation: Simulation) -> None:
    trainer, _ = make_trainer(simulation.task, simulation.engine.trainer, whole_cohorts=True)
    try:
        work = simulation.pipeline.restricted(simulation.local_work(1))
    except PipelineError:
        return  # the check of the parts says so
    trainer.check(work)
    strategy = simulation.strategy
    adapts = strategy.personal_model(1).adapt if isinstance(strategy, Personalises) else None
    if adapts is not None:
        trainer.check(adapts)


def _check_stragglers(simulation: Simulation) -> None:
    simulation.stragglers.check(simulation.strategy.local_work(1), simulation.task)


def _check_smaller_model(simulation: Simulation) -> None:
    trainer, _ = make_trainer(simulation.task, simulation.engine.trainer, whole_cohorts=True)
    check_smaller_model(
        simulation.pipeline,
        simulation.strategy,
        simulation.task,
        trainer,
        seed=simulation.settings.seed,
        examples=next(samples(simulation.dataset, simulation.task)),
    )


def _check_samples(simulation: Simulation) -> None:
    check_samples(simulation.dataset, simulation.task)


def samples(dataset: FederatedDataset, task: Task) -> Iterator[Examples]:
    """The training examples of the first clients that have any, as the model would see them.

    Raises:
      EmptyClientError: None of them holds an example.
    """
    found = 0
    for client in islice(dataset.clients, _CHECKED_CLIENTS):
        train = dataset.client(client).train
        if not len(train):
            continue
        found += 1
        x = train.x
        if task.preprocess is not None:
            x = task.preprocess.apply(x, task.preprocess.local_statistics(x))
        yield Examples(x, train.y)
    if not found:
        raise EmptyClientError(
            f"none of the first {min(_CHECKED_CLIENTS, len(dataset))} clients holds a training example",
            hint="look at who holds what: hanse data show",
        )
