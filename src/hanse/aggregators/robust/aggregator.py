"""`Robust`: the aggregator of updates of which some may be anything at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hanse.aggregators.layouts import check_layout
from hanse.aggregators.robust.mixing import Mixer
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Rule, RuleRound, needs_root, remembers, remembers_clients
from hanse.aggregators.robust.watch import Watch
from hanse.core.aggregate import Aggregate
from hanse.core.errors import NonFiniteUpdateError, PipelineError, SettingError, TooFewClientsError
from hanse.core.judged_round import JudgedRound, Memory, Verdict
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec

_LONGEST = 1e100  # of a vector: products of two, their sums and quotients stay within float64


@dataclass(slots=True)
class Gathered:
    """Updates so far; the vectors stay where they are, and nothing is added up.

    Args:
      spec: Layout of the deltas.
      updates: In the order in which they came.
    """

    spec: ParamSpec
    updates: list[Update] = field(default_factory=list)

    def check(self, update: Update) -> None:
        """Whether an update is of the same tensors; raises `SpecMismatchError`."""
        first = self.updates[0].extras if self.updates else None
        check_layout(update, self.spec, None if first is None else {name: own.spec for name, own in first.items()})


@dataclass(frozen=True, kw_only=True)
class Robust:
    """A rule over all updates at once, of which up to f may be anything at all.

    All clients weigh alike, for a client says itself how many examples it has. Vectors beside the deltas (control
    variates) are judged with them, as further elements of the same rows. Memory is one copy of the cohort's updates.

    A round with fewer updates than the rule needs for its bound is abandoned; so is one of a cohort with fewer honest
    members than the bound supposes not noticed by anybody, and f is for who runs the federation to choose.

    Args:
      rule: Many rows into one.
      attackers: f: a number of clients of each round ≥ 0, or a share of those whose updates came, in [0, 1), rounded
        down, but to 1 at the least unless it is 0: many rules against nobody are the plain mean.
      mixing: Averages rows with others before the rule sees them; None does not.
      watch: Says who stands out, in each round's record, and who is not asked any more; None does not look.
    """

    rule: Rule
    attackers: int | float
    mixing: Mixer | None = None
    watch: Watch | None = None
    _given: JudgedRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole = isinstance(self.attackers, int)
        if self.attackers < 0 or (not whole and not self.attackers < 1):
            raise SettingError("attackers", f"must be a whole number ≥ 0, or a share in [0, 1), got {self.attackers}")
        if self.mixing is not None and remembers_clients(self.rule):
            raise SettingError(
                "mixing",
                f"mixes clients' updates, and rule `{type(self.rule).__name__}` remembers those of each client",
                hint="leave mixing out, or take a rule such as multi_krum",
            )

    @property
    def needs_all(self) -> bool:
        """True: updates are held against each other."""
        return True

    @property
    def unweighted(self) -> bool:
        """True: what a client says of its weight counts for nothing."""
        return True

    @property
    def needs_root(self) -> bool:
        """Whether the server has to have an update of its own."""
        return needs_root(self.rule)

    @property
    def remembers(self) -> bool:
        """Whether anything is carried from round to round."""
        return remembers(self.rule) or self.watch is not None

    def tolerated(self, updates: int) -> int:
        """f of so many updates.

        >>> from hanse.aggregators.robust.columns import Median
        >>> Robust(rule=Median(), attackers=0.2).tolerated(14), Robust(rule=Median(), attackers=0.2).tolerated(4)
        (2, 1)
        """
        if isinstance(self.attackers, int):
            return self.attackers
        return max(math.floor(self.attackers * updates + 1e-9), int(self.attackers > 0))

    def check_number(self, updates: int) -> None:
        """Whether so many updates are enough.

        Raises:
          TooFewClientsError: They are not, and how many would be; or no number is.
        """
        f, name = self.tolerated(updates), type(self.rule).__name__
        fewest = self.rule.fewest(f)
        seen = updates if self.mixing is None else self.mixing.num_rows(updates)
        if fewest is None:
            raise TooFewClientsError(
                f"rule `{name}` as it is set does not hold against {f} attacker{'s' * (f != 1)}, however many updates "
                "there are",
                hint="use attackers = 0, or another rule",
            )
        if seen >= fewest and f < max(1, updates):
            return
        mixed = "" if self.mixing is None else f" ({type(self.mixing).__name__} makes {seen} of them)"
        raise TooFewClientsError(
            f"rule `{name}` needs at least {fewest} updates for {f} attacker{'s' * (f != 1)}, and there are "
            f"{updates}{mixed}",
            hint="ask more clients in a round, or suppose fewer attackers",
        )

    def quarantined(self, memory: Memory) -> Mapping[str, str]:
        """Clients that are not to be asked any more, and why."""
        return {} if self.watch is None else self.watch.quarantined(memory)

    def judging(self, given: JudgedRound) -> Robust:
        """The aggregator that does a round's work."""
        return replace(self, _given=given)

    def zero(self, spec: ParamSpec) -> Gathered:
        """No updates."""
        return Gathered(spec)

    def accumulate(self, accumulator: Gathered, update: Update, weight: float) -> Gathered:
        """Take in one more update; one of weight 0 is left out, and all others count alike.

        Raises:
          SpecMismatchError: It has another layout, or other vectors beside it than the first.
          NonFiniteUpdateError: It holds NaN or an infinity, or is longer than 1e100, which only float64 can be.
        """
        accumulator.check(update)
        for name, vector in {"delta": update.delta, **update.extras}.items():
            if not vector.is_finite():
                raise NonFiniteUpdateError(
                    f"round {update.round}: client `{update.client}`: its {name} holds NaN or an infinity"
                )
            if not _can_be_squared(vector):
                raise NonFiniteUpdateError(
                    f"round {update.round}: client `{update.client}`: its {name} is longer than {_LONGEST:g}: nothing "
                    "can be held against that"
                )
        if weight > 0:
            accumulator.updates.append(update)
        return accumulator

    def merge(self, left: Gathered, right: Gathered) -> Gathered:
        """All updates of both; raises `SpecMismatchError` where they are of different tensors."""
        for update in right.updates:
            left.check(update)
            left.updates.append(update)
        return left

    def finish(self, accumulator: Gathered) -> Aggregate:
        """What the rule makes of them; the order in which they came plays no role.

        Raises:
          TooFewClientsError: There are none, or too few for so many attackers.
          PipelineError: The rule needs an update of the server's own, and there is none.
        """
        updates = sorted(accumulator.updates, key=_key)
        if not updates:
            raise TooFewClientsError("no update with a positive weight came, so there is nothing to judge")
        self.check_number(len(updates))
        given = self._given or JudgedRound(round=updates[0].round, rng=np.random.default_rng(updates[0].round))
        if self.needs_root and given.root is None:
            raise PipelineError(
                f"rule `{type(self.rule).__name__}` compares updates with one of the server's own, and the server has "
                "no examples",
                hint="give it some: [data] root = 100",
            )
        layout = _Layout.of(updates[0])
        rows = Rows([layout.row(update) for update in updates])
        known = RuleRound(
            attackers=self.tolerated(len(updates)),
            rng=given.rng,
            clients=tuple(update.client for update in updates),
            root=None if given.root is None else layout.row(given.root),
            memory=given.memory,
        )
        verdicts, watched = self._watched(rows, updates, layout, given)
        if self.mixing is not None:
            mix = self.mixing.matrix(rows, attackers=known.attackers, rng=given.rng)
            rows = rows.mixed(mix)
            known = replace(known, clients=tuple(_joined(known.clients, weights) for weights in mix))
        found = self.rule.combine(rows, known)
        weights = found.weights if self.mixing is None or found.weights is None else found.weights @ mix
        return Aggregate(
            delta=layout.delta(found.vector),
            num_clients=len(updates),
            num_examples=sum(update.num_examples for update in updates),
            extras=layout.extras(found.vector),
            measured=found.measured,
            memory={**found.memory, **watched},
            verdicts=_weighed(verdicts, weights),
        )

    def _watched(
        self, rows: Rows, updates: Sequence[Update], layout: _Layout, given: JudgedRound
    ) -> tuple[list[Verdict], dict[str, np.ndarray]]:
        """Verdicts without weights, and what is to be known of clients in the next round."""
        if self.watch is None:
            return [Verdict(client=update.client) for update in updates], {}
        loss = given.root_loss

        def losses() -> np.ndarray:
            assert loss is not None
            return np.array([loss(update.delta) for update in updates])

        clients = [update.client for update in updates]
        return self.watch.judge(rows, clients, given.memory, losses=None if loss is None else losses)


@dataclass(frozen=True)
class _Layout:
    """Where the delta and the vectors beside it stand in a row."""

    spec: ParamSpec
    beside: tuple[tuple[str, ParamSpec], ...]

    @staticmethod
    def of(update: Update) -> _Layout:
        return _Layout(update.delta.spec, tuple((name, update.extras[name].spec) for name in sorted(update.extras)))

    def row(self, update: Update) -> np.ndarray:
        """The update's own array where there is nothing beside it."""
        if not self.beside:
            return update.delta.numpy()
        parts = [update.delta.numpy(), *(update.extras[name].numpy() for name, _ in self.beside)]
        return np.concatenate(parts)

    def delta(self, vector: np.ndarray) -> Params:
        return Params(self.spec, vector[: self.spec.size].astype(self.spec.dtype))

    def extras(self, vector: np.ndarray) -> dict[str, Params]:
        found, start = {}, self.spec.size
        for name, spec in self.beside:
            found[name] = Params(spec, vector[start : start + spec.size].astype(spec.dtype))
            start += spec.size
        return found


def _can_be_squared(vector: Params) -> bool:
    values = vector.numpy()
    if values.itemsize < 8:  # float32 ends at 3e38
        return True
    with np.errstate(over="ignore"):
        return bool(np.dot(values, values) <= _LONGEST**2)


def _weighed(verdicts: Sequence[Verdict], weights: np.ndarray | None) -> tuple[Verdict, ...]:
    if weights is None:
        return tuple(verdicts)
    return tuple(replace(own, weight=float(weight)) for own, weight in zip(verdicts, weights, strict=True))


def _key(update: Update) -> tuple[str, int]:
    return update.client, update.round


def _joined(clients: Sequence[str], weights: np.ndarray) -> str:
    return "+".join(client for client, weight in zip(clients, weights, strict=True) if weight)
