"""A small secure sum whose messages tests can hold, change, lose and replay."""

from __future__ import annotations

from typing import Any

import numpy as np

from hanse.core.random_bytes import SimulatedBytes
from hanse.core.randomness import stream
from hanse.secagg import ClientSession, Layout, Part, RehearsedIdentities, ServerSession, Terms, from_bytes, to_bytes

LAYOUT = Layout((Part("delta", 9, 20), Part("weight", 1, 64)))


def make_terms(cohort: int, **changed: Any) -> Terms:
    settings = {"run": "run-1", "round": 3, "layout": LAYOUT, "cohort": cohort, "simulated": True, **changed}
    return Terms(**settings)


def source(*key: str | int) -> SimulatedBytes:
    return SimulatedBytes(stream(5, "secagg-test", *key))


def names(cohort: int) -> list[str]:
    return [f"site-{number:03d}" for number in range(cohort)]


def values_of(name: str, layout: Layout = LAYOUT) -> dict[str, np.ndarray]:
    rng = stream(9, "values", name)
    return {part.name: rng.integers(-1000, 1000, part.length) for part in layout.parts}


def plain_sum(clients: tuple[str, ...], layout: Layout = LAYOUT) -> dict[str, list[int]]:
    """The modular sum by whole numbers of Python."""
    found = {}
    for part in layout.parts:
        columns = zip(*(values_of(name, layout)[part.name].tolist() for name in clients), strict=True)
        found[part.name] = [sum(column) % 2**part.bits for column in columns]
    return found


class Parties:
    """A server and its clients; `sent` and `answers` are what they last said."""

    def __init__(self, cohort: int, *, seed: int = 0, **changed: Any) -> None:
        self.terms = make_terms(cohort, **changed)
        self.names = names(cohort)
        self.identities = RehearsedIdentities(self.names, source("identities"))
        self.server = ServerSession(
            self.terms, self.names, verify=self.identities.verify, source=source("server", seed)
        )
        self.clients = {name: self.client(name, seed=seed) for name in self.names}
        self.sent: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}

    def client(self, name: str, *, seed: int = 0, **changed: Any) -> ClientSession:
        session = ClientSession(
            changed.pop("terms", self.terms),
            name,
            sign=self.identities.sign_for(name),
            verify=self.identities.verify,
            source=source(name, seed),
            **changed,
        )
        session.set_input(values_of(name, self.terms.layout))
        return session

    def step(self, *, lost: tuple[str, ...] = ()) -> None:
        """One phase up to the answers, which are not yet given to the server; through bytes both ways."""
        self.sent = {name: self.through_bytes(message) for name, message in self.server.advance().items()}
        self.answers = {
            name: self.through_bytes(self.clients[name].receive(message))
            for name, message in self.sent.items()
            if name not in lost
        }

    def give(self, *, but: tuple[str, ...] = ()) -> None:
        for name, answer in self.answers.items():
            if name not in but:
                self.server.receive(name, answer)

    def phases(self, count: int, *, lost: tuple[str, ...] = ()) -> Parties:
        """That many whole phases."""
        for _ in range(count):
            self.step(lost=lost)
            self.give()
        return self

    def through_bytes(self, message: Any) -> Any:
        return from_bytes(to_bytes(message), most=self.terms.most_bytes)
