"""`SumsOfGroups`: a robust rule over secure sums of groups of clients, so that nobody sees a single update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hanse.aggregators.hidden_round import SecretTotal, SimulatesSums, SumRound, SumSizes, in_a_round
from hanse.aggregators.hidden_sum import OneSum
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Rule, RuleRound, needs_root, remembers
from hanse.aggregators.secure_sum import SecureSum
from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError, SettingError, TooFewClientsError
from hanse.core.judged_round import Verdict
from hanse.core.messages import Sums, Update
from hanse.core.params import ParamSpec
from hanse.core.protocols import Aggregator
from hanse.core.randomness import stream
from hanse.core.sum_layout import Layout
from hanse.core.summed_in_turn import SummedInTurn

_USE = "sums_of_groups"


@dataclass(frozen=True)
class _Sizes:
    """As `SumSizes`: one client's messages, and how many of the whole cohort must be in the groups' sums."""

    up: int
    down: int
    survivors: int
    told: str


@dataclass(slots=True)
class GroupTotals:
    """What the parties of each group's sum have so far.

    Args:
      totals: One for each group, in order.
    """

    totals: list[SecretTotal]

    @property
    def traffic(self) -> tuple[int, int] | None:
        """Bytes that clients have sent and were sent in the protocol's messages; None where there were none."""
        found = [total.traffic for total in self.totals]
        known = [pair for pair in found if pair is not None]
        return (sum(up for up, _ in known), sum(down for _, down in known)) if known else None


@dataclass(frozen=True, kw_only=True)
class SumsOfGroups:
    """The cohort in random groups, a secure sum of each, and a robust rule over the groups' means.

    The server learns each group's mean and no single update; a hostile client spoils its group's mean, whatever the
    others in it sent, so f attackers spoil f groups at most, and the rule has to hold against that. Privacy wants
    large groups and robustness many: n clients in g groups hide each among n / g, and stand f < g / 2 attackers.

    Groups are drawn anew in each round, from the job's seed, as equal in size as can be; all groups' means weigh alike.
    A group of which too few answer is not opened and does not count. Where a round happens to ask fewer clients than
    there are groups, they are one group: enough for a rule that needs one, and else the round is abandoned. Between
    sites the groups' sums are gathered one after another; who is in which group, a coordinator says, as it says who is
    in a round.

    Args:
      groups: g ≥ 1.
      rule: The groups' means into one.
      attackers: f: how many clients of a round may send anything at all, ≥ 0.
      sum: How each group's updates are added up.

    References:
      Velicheti, Xia, Koyejo 2021, "Secure Byzantine-robust distributed learning via clustering": secure averages of
      random clusters under a robust rule. Here any rule and any of Hanse's sums go together.
    """

    groups: int
    rule: Rule
    attackers: int
    sum: Aggregator = field(default_factory=SecureSum)
    _members: tuple[tuple[str, ...], ...] = field(default=(), repr=False, compare=False)
    _sums: tuple[Aggregator, ...] = field(default=(), repr=False, compare=False)
    _given: SumRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise SettingError("groups", f"must be at least 1, got {self.groups}")
        if self.attackers < 0:
            raise SettingError("attackers", f"must be at least 0, got {self.attackers}")
        if not isinstance(self.sum, SimulatesSums):
            raise SettingError(
                "sum", f"`{type(self.sum).__name__}` hides no single update", hint='use sum = { use = "secure_sum" }'
            )
        if self.sum.expected is not None:
            raise SettingError(
                "sum.expected", "is for a sum of the whole cohort; groups' means are divided by who came"
            )
        name = type(self.rule).__name__
        if needs_root(self.rule) or remembers(self.rule):
            raise SettingError("rule", f"`{name}` needs more than the round's sums", hint='use rule = "median"')
        fewest = self.rule.fewest(self.attackers)
        if fewest is None or self.groups < fewest:
            wanted = "no number of groups is enough" if fewest is None else f"at least {fewest} are needed"
            raise SettingError(
                "groups",
                f"is {self.groups}; for {self.attackers} attackers and rule `{name}` {wanted}",
                hint="make more groups, or suppose fewer attackers",
            )

    @property
    def needs_all(self) -> bool:
        """False: each update is masked and added up when it comes."""
        return False

    @property
    def sums(self) -> bool:
        """True: what stages finish is a sum."""
        return True

    @property
    def hides_replies(self) -> bool:
        """True: no single update is seen by whoever adds up."""
        return True

    @property
    def adds_numbers(self) -> bool:
        """Whether other numbers are learnt as sums likewise: of all clients, not of groups."""
        return bool(getattr(self.sum, "adds_numbers", False))

    @property
    def expected(self) -> float | None:
        """None: each group's sum is divided by who came."""
        return None

    @property
    def _simulated(self) -> SimulatesSums:
        assert isinstance(self.sum, SimulatesSums)
        return self.sum

    def survivors(self, cohort: int) -> int:
        """How many of a cohort's updates must be in the sums, if they come from as few groups as the rule needs."""
        return self._fewest * self._simulated.survivors(self.smallest(cohort))

    def smallest(self, cohort: int) -> int:
        """Clients in the smallest group of a cohort, at least 1."""
        return max(1, cohort // self.groups)

    def sums_of(self, holding: Sequence[str]) -> tuple[OneSum, ...]:
        """The round's sums, of those who hold an update; raises `PipelineError` outside of a round."""
        in_a_round(self._given, _USE)
        return tuple(
            OneSum(
                clients=tuple(client for client in holding if client in group),
                least=self._simulated.survivors(len(group)),
            )
            for group in map(frozenset, self._members)
        )

    def together(self, totals: Sequence[SecretTotal]) -> GroupTotals:
        """The accumulator of sums whose parts came, in the order of `sums_of`."""
        return GroupTotals(list(totals))

    def sizes(self, given: SumRound, layout: Layout, *, name_bytes: int) -> SumSizes:
        """What one client's messages come to, in the largest group; as `SimulatesSums.sizes`.

        Raises:
          PipelineError: There are fewer clients than groups, or each would be alone in its own.
        """
        clients = len(given.clients)
        if clients < self.groups or clients == self.groups > 1:
            why = "can't be in" if clients < self.groups else "are alone in each of"
            raise PipelineError(
                f"pipeline.aggregator: {clients} clients a round {why} {self.groups} groups",
                hint="ask more clients in a round, or make fewer groups",
            )
        largest = max(_split(given, self.groups), key=len)
        one = self._simulated.sizes(self._of_group(given, largest), layout, name_bytes=name_bytes)
        return _Sizes(one.up, one.down, self.survivors(clients), one.told)

    def in_round(self, given: SumRound) -> SumsOfGroups:
        """The aggregator that does a simulated round's work."""
        members = _split(given, self.groups)
        sums = tuple(self._simulated.in_round(self._of_group(given, group)) for group in members)
        return replace(self, _members=members, _sums=sums, _given=given)

    def begin(self, given: SumRound, layout: Layout, *, purpose: str) -> SummedInTurn | None:
        """A sum of all clients' numbers; as `SimulatesSums.begin`."""
        return self._simulated.begin(given, layout, purpose=purpose)

    def zero(self, spec: ParamSpec) -> GroupTotals:
        """Nothing yet; raises `PipelineError` outside of a round."""
        in_a_round(self._given, _USE)
        return GroupTotals([own.zero(spec) for own in self._sums])

    def accumulate(self, accumulator: GroupTotals, update: Update, weight: float) -> GroupTotals:
        """Let a client send its update under its masks, to its group; raises as `SecureSum.accumulate` does."""
        for i, group in enumerate(self._members):
            if update.client in group:
                accumulator.totals[i] = self._sums[i].accumulate(accumulator.totals[i], update, weight)
                return accumulator
        raise PipelineError(f"round {update.round}: client `{update.client}` is in no group: it was not asked")

    def merge(self, left: GroupTotals, right: GroupTotals) -> GroupTotals:
        """Group by group; refused with `PipelineError` where both have updates of one."""
        merged = zip(self._sums, left.totals, right.totals, strict=True)
        return GroupTotals([own.merge(a, b) for own, a, b in merged])

    def finish(self, accumulator: GroupTotals) -> Aggregate:
        """The rule over the sums' own elements; for sums that no stage has to finish."""
        return self.combined(self.opened(accumulator))

    def opened(self, accumulator: GroupTotals) -> list[Aggregate]:
        """Each group's sum, as residues; of a group of which too few answered there is none."""
        found = []
        for own, total in zip(self._sums, accumulator.totals, strict=True):
            try:
                found.append(own.finish(total))
            except TooFewClientsError:
                continue
        return found

    def combined(self, aggregates: Sequence[Aggregate]) -> Aggregate:
        """The groups' means as one.

        Args:
          aggregates: Of the groups that were opened, divided by their weight, all stages finished.

        Raises:
          TooFewClientsError: Fewer groups were opened than the rule needs.
        """
        if len(aggregates) < self._fewest:
            raise TooFewClientsError(
                f"{len(aggregates)} of {self.groups} groups were opened, and rule `{type(self.rule).__name__}` needs "
                f"{self._fewest} for {self.attackers} attackers"
            )
        given = in_a_round(self._given, _USE)
        names = tuple(f"group {i}" for i in range(len(aggregates)))
        known = RuleRound(
            attackers=self.attackers,
            rng=stream(given.seed, "judging groups", given.round),
            clients=names,
        )
        found = self.rule.combine(Rows([own.delta.numpy() for own in aggregates]), known)
        first = aggregates[0].delta
        weights = [None] * len(names) if found.weights is None else [float(weight) for weight in found.weights]
        return Aggregate(
            delta=first.with_vector(found.vector.astype(first.spec.dtype)),
            num_clients=_total(own.num_clients for own in aggregates),
            num_examples=_total(own.num_examples for own in aggregates),
            sums=_added([own.sums for own in aggregates]),
            measured={**found.measured, "groups": float(len(aggregates))},
            verdicts=tuple(Verdict(client=name, weight=own) for name, own in zip(names, weights, strict=True)),
        )

    @property
    def _fewest(self) -> int:
        fewest = self.rule.fewest(self.attackers)
        assert fewest is not None  # refused when it was built
        return fewest

    def _of_group(self, given: SumRound, group: tuple[str, ...]) -> SumRound:
        return replace(given, clients=group, least=self._simulated.survivors(len(group)))


def _total(counts: Iterable[int]) -> int:
    return int(np.sum(list(counts)))  # `sum` is a setting here


def _added(parts: Sequence[Sums]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = found.get(name, 0.0) + value
    return found


def _split(given: SumRound, groups: int) -> tuple[tuple[str, ...], ...]:
    """The cohort in random groups whose sizes differ by one at most, each sorted; one group where it is too small."""
    clients = sorted(given.clients)
    if len(clients) < groups:  # a cohort of random size; groups of one would hide nothing
        return (tuple(clients),)
    order = stream(given.seed, "groups of sums", given.round).permutation(len(clients))
    parts = np.array_split(order, groups)
    return tuple(tuple(sorted(clients[i] for i in part)) for part in parts)
