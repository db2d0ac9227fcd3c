"""`Plan`: the settings of a robustness table, and its cells in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hanse.core.errors import SettingError, did_you_mean
from hanse.robustness.entries import AttackEntry, RuleEntry, chosen_attacks, chosen_rules
from hanse.robustness.setups import PARTITIONS, Setup, setup_of


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a cell stands.

    Args:
      partition: Who holds what.
      share: Of the clients, that attacks.
      attack: Name of the row.
      rule: Name of the column.
    """

    partition: str
    share: float
    attack: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A robustness table.

    Args:
      data: Name of the data set.
      setup: What is done with it.
      attacks: Rows, the one without an attack first.
      rules: Columns, the plain mean first.
      shares: Of the clients that attack, a table each.
      partitions: Who holds what, a table each.
      rounds: Of each run.
      seed: Of each run.
    """

    data: str
    setup: Setup
    attacks: tuple[AttackEntry, ...]
    rules: tuple[RuleEntry, ...]
    shares: tuple[float, ...]
    partitions: tuple[str, ...]
    rounds: int
    seed: int

    def cells(self) -> Iterator[Place]:
        """All of them: table by table, and row by row in each."""
        for partition, share in self.tables():
            for attack in self.attacks:
                for rule in self.rules:
                    yield Place(partition=partition, share=share, attack=attack.name, rule=rule.name)

    def tables(self) -> Iterator[tuple[str, float]]:
        """Partition and share of each."""
        for partition in self.partitions:
            for share in self.shares:
                yield partition, share

    def attack(self, name: str) -> AttackEntry:
        """A row by its name."""
        return next(entry for entry in self.attacks if entry.name == name)

    def rule(self, name: str) -> RuleEntry:
        """A column by its name."""
        return next(entry for entry in self.rules if entry.name == name)

    def job(self, place: Place) -> dict[str, Any]:
        """The job of a cell, as plain values."""
        entry, rule, setup = self.attack(place.attack), self.rule(place.rule), self.setup
        members = {"share": place.share} if entry.count is None else {"count": entry.count}
        return {
            "name": f"{place.attack}-{place.rule}",
            "rounds": self.rounds,
            "seed": self.seed,
            "data": {**setup.data, "partition": setup.partition(place.partition)},
            "task": dict(setup.task),
            "strategy": dict(setup.strategy),
            "evaluate": {"every": self.rounds, "initial": False},
            "pipeline": {"aggregator": rule.aggregator(place.share)},
            "attack": {**entry.attack, "members": members} if entry.attack else {},
            "trainer": "resident",
        }

    def settings(self) -> dict[str, Any]:
        """Everything that the figures depend on, as plain values."""
        return {
            "data": {**self.setup.data, "clients": self.setup.clients},
            "partitions": {name: self.setup.partition(name) for name in self.partitions},
            "task": dict(self.setup.task),
            "strategy": dict(self.setup.strategy),
            "rounds": self.rounds,
            "seed": self.seed,
            "shares": list(self.shares),
            "attacks": {entry.name: {**entry.attack, "count": entry.count} for entry in self.attacks},
            "rules": {entry.name: {**entry.rule, "mixing": entry.mixing} for entry in self.rules},
        }


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What somebody asks for; None is everything, or what suits the data set.

    Args:
      data: Name of the data set.
      rules: Names of columns beside the plain mean.
      attacks: Names of rows beside the one without an attack.
      shares: Each in (0, 1).
      partitions: ``"iid"`` and ``"dirichlet"``, or one of them.
      rounds: ≥ 1.
      seed: Of each run.
    """

    data: str = "digits"
    rules: Sequence[str] | None = None
    attacks: Sequence[str] | None = None
    shares: Sequence[float] = (0.2, 0.4)
    partitions: Sequence[str] = PARTITIONS
    rounds: int | None = None
    seed: int = 0


def make_plan(wanted: Wanted) -> Plan:
    """The table that somebody asks for.

    Raises:
      SettingError: A name or a number that it can't have.
    """
    setup = setup_of(wanted.data)
    for name in wanted.partitions:
        if name not in PARTITIONS:
            hint = did_you_mean(name, PARTITIONS)
            raise SettingError("--partitions", f"there is no table for the partition `{name}`", hint=hint)
    for share in wanted.shares:
        if not 0 < share < 1:
            raise SettingError("--shares", f"must be more than 0 and less than 1, got {share:g}")
    for option, values in (("--shares", wanted.shares), ("--partitions", wanted.partitions)):
        if not values:
            raise SettingError(option, "must name one at least")
    rounds = setup.rounds if wanted.rounds is None else wanted.rounds
    if rounds < 1:
        raise SettingError("--rounds", f"must be at least 1, got {rounds}")
    return Plan(
        data=wanted.data,
        setup=setup,
        attacks=chosen_attacks(wanted.attacks, setup.trigger),
        rules=chosen_rules(wanted.rules),
        shares=tuple(dict.fromkeys(wanted.shares)),
        partitions=tuple(dict.fromkeys(wanted.partitions)),
        rounds=rounds,
        seed=wanted.seed,
    )


def settings_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that are not what they were."""
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
