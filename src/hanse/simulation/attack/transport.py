"""A transport some of whose clients are hostile in training; in all else they behave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from hanse.core.messages import Phase, Reply, TrainPhase, Update
from hanse.core.protocols import Transport
from hanse.pipeline.pipeline import Pipeline
from hanse.simulation.attack.crafting import Crafting
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.attack.poisoned import hostile_name

V = TypeVar("V")


class AttackedTransport:
    """Asks hostile clients to train on what they have poisoned, and sends what they craft in place of their updates.

    All of a round's replies are gathered before the first is handed on where attackers look at others' updates.

    Args:
      inner: Carries what there is to carry; of a poisoned data set.
      placed: The attack, and who carries it out.
      pipeline: The run's.
      clients: Everybody, without the clients that stand for hostile ones.
      seed: The job's.
    """

    def __init__(
        self, inner: Transport, placed: PlacedAttack, pipeline: Pipeline, *, clients: Sequence[str], seed: int
    ) -> None:
        self._inner = inner
        self._placed = placed
        self._clients = clients
        self._seed = seed
        self._craft = None if placed.crafts is None else Crafting(placed.crafts, pipeline, seed=seed)

    @property
    def clients(self) -> Sequence[str]:
        """Everybody, as ever."""
        return self._clients

    def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies; in training, those of hostile clients are theirs."""
        hostile = frozenset[str]()
        if isinstance(phase, TrainPhase):
            hostile = self._placed.members.in_round(self._clients, self._seed, phase.round) & set(clients)
        if not hostile or not isinstance(phase, TrainPhase):
            yield from self._inner.exchange(phase, clients)
            return
        replies = self._trained(phase, clients, hostile)
        if self._craft is None:
            yield from replies
            return
        gathered = list(replies)
        crafted = self._craft(phase, [reply for reply in gathered if isinstance(reply, Update)], hostile)
        for reply in gathered:
            yield crafted.get(reply.client, reply) if isinstance(reply, Update) else reply

    def close(self) -> None:
        """Let go of the inner transport."""
        self._inner.close()

    def _trained(self, phase: TrainPhase, clients: Sequence[str], hostile: frozenset[str]) -> Iterator[Reply]:
        """What everybody has trained, hostile clients on what they have poisoned."""
        if self._placed.poisons is None:
            yield from self._inner.exchange(phase, clients)
            return
        names = {client: hostile_name(client) if client in hostile else client for client in clients}
        own = {asked: client for client, asked in names.items()}
        told = replace(phase, accepted=_renamed(phase.accepted, names), shares=_renamed(phase.shares, names))
        groups = tuple(
            group if group.clients is None else replace(group, clients=tuple(names.get(c, c) for c in group.clients))
            for group in phase.groups
        )
        for reply in self._inner.exchange(replace(told, groups=groups), [names[client] for client in clients]):
            yield replace(reply, client=own[reply.client])


def _renamed(values: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    return {names.get(client, client): value for client, value in values.items()}
