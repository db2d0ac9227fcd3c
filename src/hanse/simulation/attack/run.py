"""An attack in a simulated run: the data that it poisons, the transport that carries it, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hanse.core.errors import HanseError, PipelineError, SettingError
from hanse.core.messages import Statistics, Sums
from hanse.core.params import Params
from hanse.core.protocols import Transport
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.rounds.central import prepared
from hanse.rounds.evaluation import CentralEvaluation
from hanse.rounds.run_parts import SimulatedAttack
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.attack.poisoned import with_poisoned
from hanse.simulation.attack.transport import AttackedTransport
from hanse.simulation.parts import Simulation
from hanse.trainers.auto import make_trainer

_PROBES = 64  # examples of a client on which a poison is tried before a run
_CLIENTS = 50  # whose held-out examples a backdoor is measured on, where the server has no test set


def attacked_dataset(simulation: Simulation) -> FederatedDataset:
    """The data set that clients read, hostile ones what they have poisoned."""
    placed, dataset = simulation.attack, simulation.dataset
    if placed is None:
        return dataset
    return with_poisoned(dataset, placed, seed=simulation.settings.seed, num_classes=_num_classes(dataset))


def under_attack(simulation: Simulation, transport: Transport) -> Transport:
    """The transport with the simulation's attack around it, where there is one."""
    if simulation.attack is None:
        return transport
    return AttackedTransport(
        transport,
        simulation.attack,
        simulation.pipeline,
        clients=simulation.dataset.clients,
        seed=simulation.settings.seed,
    )


def simulated_attack(simulation: Simulation) -> SimulatedAttack | None:
    """What the round loop says of the simulation's attack, where there is one."""
    placed = simulation.attack
    if placed is None:
        return None
    clients, seed = simulation.dataset.clients, simulation.settings.seed

    def among(cohort: Sequence[str], round_number: int) -> frozenset[str]:
        return placed.members.in_round(clients, seed, round_number) & set(cohort)

    return SimulatedAttack(among=among, success=_success(simulation, placed))


def check_attack(simulation: Simulation) -> None:
    """Whether the attack can be carried out here.

    Raises:
      HanseError: It can't: nobody carries it out, or it does not go with the data.
    """
    placed = simulation.attack
    if placed is None:
        return
    dataset, seed = simulation.dataset, simulation.settings.seed
    try:
        members = placed.may_attack(dataset.clients, seed)
    except SettingError as problem:
        raise SettingError(f"attack.members.{problem.where}", problem.problem, hint=problem.hint) from None
    if not members:
        raise SettingError("attack.members", "comes to nobody", hint="take a larger share, or name clients")
    first = placed.members.from_round
    if len(placed.members.in_round(dataset.clients, seed, first)) == len(dataset.clients):
        raise SettingError("attack.members", "are all clients there are", hint="leave some of them honest")
    if first > simulation.settings.rounds:
        raise SettingError(
            "attack.members.from_round",
            f"is {first}, and the run ends after round {simulation.settings.rounds}: nobody would attack",
        )
    if placed.poisons is None:
        return
    own = dataset.client(members[0]).train
    few = own.take(slice(0, _PROBES))
    try:
        poisoned = placed.poisons.poison(
            few, member=0, num_members=1, num_classes=_num_classes(dataset), rng=np.random.default_rng(0)
        )
        _triggered(simulation, placed)
    except HanseError as problem:
        raise PipelineError(f"attack: {problem.message}", hint=problem.hint) from None
    if len(poisoned) != len(few):
        raise PipelineError(
            f"attack: `{type(placed.attack).__name__}` makes {len(poisoned)} examples of {len(few)}; a poison changes "
            "examples, and adds none"
        )


def _success(simulation: Simulation, placed: PlacedAttack) -> CentralEvaluation | None:
    examples, task = _triggered(simulation, placed), simulation.task
    if examples is None or not len(examples):
        return None
    trainer, _ = make_trainer(task, simulation.engine.trainer, whole_cohorts=True)

    def measure(params: Params, statistics: Statistics) -> Sums:
        return trainer.evaluate(params, ("", "trigger"), lambda: prepared(task, examples, statistics))

    return measure


def _triggered(simulation: Simulation, placed: PlacedAttack) -> Examples | None:
    """Examples with the trigger, of the server's test set or else of what clients hold out; None without a trigger."""
    dataset = simulation.dataset
    if placed.triggers is None:
        return None
    test = dataset.central_test
    if test is None:
        test = Examples.concatenate([dataset.client(client).test for client in dataset.clients[:_CLIENTS]])
    return placed.triggers.triggered(test, num_classes=_num_classes(dataset))


def _num_classes(dataset: FederatedDataset) -> int:
    """Classes of the targets; 0 where they are numbers."""
    if dataset.dataset is not None:
        return dataset.dataset.num_classes
    labels = dataset.client(dataset.clients[0]).train.y
    return int(labels.max()) + 1 if labels.dtype.kind in "iu" and labels.ndim == 1 and len(labels) else 0
