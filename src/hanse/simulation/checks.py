"""What must fit together before a simulation runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from hanse.core.errors import EmptyClientError, HanseError, JobProblems, PipelineError, TaskError
from hanse.core.protocols import Task
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.simulation.parts import Simulation
from hanse.trainers.auto import make_trainer

_CHECKED_CLIENTS = 20  # whose examples are tried on the model before a run; the others fail by name, if they do


def check_simulation(simulation: Simulation) -> None:
    """Try the parts on each other, all of them, before anything runs.

    Raises:
      JobProblems: Several things do not fit.
      HanseError: One thing does not fit; in a sentence.
    """
    checks: tuple[Callable[[Simulation], None], ...] = (
        lambda given: given.settings.cohort.check(given.population()),
        _check_weighting,
        _check_cohort,
        _check_personal,
        _check_trainer,
        _check_samples,
    )
    problems = []
    for check in checks:
        try:
            check(simulation)
        except HanseError as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise JobProblems(problems, source="the simulation")


def _check_weighting(simulation: Simulation) -> None:
    if simulation.pipeline.weighting != simulation.strategy.weighting:
        raise PipelineError(
            f"the pipeline weighs clients by {simulation.pipeline.weighting}, "
            f"the strategy by {simulation.strategy.weighting}"
        )


def _check_trainer(simulation: Simulation) -> None:
    trainer, _ = make_trainer(simulation.task, simulation.engine.trainer)
    trainer.check(simulation.strategy.local_work(1))


def _check_samples(simulation: Simulation) -> None:
    for examples in _samples(simulation.dataset, simulation.task):
        simulation.task.check(examples.x, examples.y)


def _check_cohort(simulation: Simulation) -> None:
    most = getattr(simulation.strategy, "max_cohort", None)
    size = getattr(simulation.settings.cohort, "size", len(simulation.dataset))
    if most is not None and size > most:
        raise PipelineError(
            f"{type(simulation.strategy).__name__} takes at most {most} client(s) a round, the cohort has {size}",
            hint=f'use cohort = {{ use = "cyclic", size = {most} }}',
        )


def _check_personal(simulation: Simulation) -> None:
    patterns = simulation.strategy.local_work(1).personal
    spec = simulation.task.init_params(simulation.settings.seed).spec
    for pattern in patterns:
        if not spec.matching((pattern,)):
            names = ", ".join(tensor.name for tensor in spec.tensors[:12])
            raise TaskError(f"personal: no tensor matches `{pattern}`", hint=f"the model has: {names}")


def _samples(dataset: FederatedDataset, task: Task) -> Iterator[Examples]:
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
