"""Robust accuracy in a simulated run: the model on the server's test set, each input moved against it."""

from __future__ import annotations

from hanse.core.errors import SettingError
from hanse.core.messages import Statistics, Sums
from hanse.core.params import Params
from hanse.data.examples import Examples
from hanse.rounds.central import prepared
from hanse.rounds.evaluation import CentralEvaluation
from hanse.simulation.parts import Simulation
from hanse.trainers.auto import make_robustness


def robust_evaluation(simulation: Simulation) -> CentralEvaluation | None:
    """Measures on perturbed test examples, in this process; None where the job asks for no such thing.

    Raises:
      HanseError: As `check_robustness`.
    """
    perturbation = simulation.settings.evaluate.robust
    if perturbation is None:
        return None
    test, task = _test_set(simulation), simulation.task
    measures = make_robustness(task, simulation.engine.trainer, perturbation, seed=simulation.settings.seed)

    def measure(params: Params, statistics: Statistics) -> Sums:
        return measures(params, lambda: prepared(task, test, statistics))

    return measure


def check_robustness(simulation: Simulation) -> None:
    """Whether robust accuracy can be measured here, where a job asks for it; one example is tried.

    Raises:
      SettingError: There is no test set that it could be measured on, or no one model.
      TaskError: The task's inputs can't be moved.
    """
    perturbation = simulation.settings.evaluate.robust
    if perturbation is None:
        return
    few, task = _test_set(simulation).take(slice(0, 1)), simulation.task
    if simulation.strategy.local_work(1).personal:
        raise SettingError(
            "evaluate.robust",
            f"is measured on the server's model, and with {type(simulation.strategy).__name__} clients keep a part of "
            "theirs",
        )
    measures = make_robustness(task, simulation.engine.trainer, perturbation, seed=simulation.settings.seed)
    if task.preprocess is not None:
        few = Examples(task.preprocess.apply(few.x, task.preprocess.local_statistics(few.x)), few.y)
    measures(task.init_params(simulation.settings.seed), lambda: few)


def _test_set(simulation: Simulation) -> Examples:
    test, preprocess = simulation.dataset.central_test, simulation.task.preprocess
    if test is None or not len(test):
        raise SettingError(
            "evaluate.robust",
            "is measured on the server's own test set, and these data come without one",
            hint="leave it out, or take data with a test set of their own, such as mnist",
        )
    if preprocess is not None and preprocess.scope == "client":
        raise SettingError(
            "evaluate.robust",
            "is measured on the server's own test set, and inputs are prepared with each client's own statistics",
            hint="leave it out, or prepare inputs with statistics of the federation",
        )
    return test
