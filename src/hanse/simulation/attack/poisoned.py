"""A data set in which hostile clients stand once more, with the examples that they train on when they attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hanse.attacks.attack import Poisons
from hanse.core.randomness import stream
from hanse.data.federated import ClientData, FederatedDataset
from hanse.simulation.attack.placed import PlacedAttack

_HOSTILE = "hostile: "


def hostile_name(client: str) -> str:
    """What a client is called where it trains on what it has poisoned."""
    return f"{_HOSTILE}{client}"


def with_poisoned(dataset: FederatedDataset, placed: PlacedAttack, *, seed: int, num_classes: int) -> FederatedDataset:
    """The data set with a second client for each that may attack, of as many examples, poisoned when they are read.

    Args:
      dataset: Everybody's own.
      placed: The attack; without a poison the data set stays what it is.
      seed: The job's.
      num_classes: Of the targets; 0 where they are numbers.
    """
    poison = placed.poisons
    if poison is None:
        return dataset
    members = placed.may_attack(dataset.clients, seed)
    places = {hostile_name(client): (client, i) for i, client in enumerate(members)}
    together = len(placed.members.in_round(dataset.clients, seed, placed.members.from_round))
    reader = _PoisonedReader(dataset.client, places, poison, together, num_classes, seed)
    sizes = np.array([dataset.num_examples(client) for client in members], dtype=dataset.sizes.dtype)
    return FederatedDataset(
        [*dataset.clients, *places],
        np.concatenate([dataset.sizes, sizes]),
        reader,
        dataset=dataset.dataset,
        central_test=dataset.central_test,
        held_out=dataset.held_out,
        root=dataset.root,
    )


@dataclass(frozen=True, eq=False)
class _PoisonedReader:
    """A value and not a closure, so that it can be sent to another process."""

    read: Callable[[str], ClientData]
    places: dict[str, tuple[str, int]]
    poison: Poisons
    together: int
    num_classes: int
    seed: int

    def __call__(self, client: str) -> ClientData:
        if client not in self.places:
            return self.read(client)
        own, member = self.places[client]
        data = self.read(own)
        poisoned = self.poison.poison(
            data.train,
            member=member,
            num_members=self.together,
            num_classes=self.num_classes,
            rng=stream(self.seed, "poison", own),
        )
        return replace(data, client=client, train=poisoned)
