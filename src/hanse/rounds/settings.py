"""What the round loop is told: how many rounds, who, when to evaluate, when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from hanse.core.adversarial import Perturbation
from hanse.core.errors import SettingError
from hanse.rounds.selection import Everyone, Selector
from hanse.rounds.staleness import PolynomialStaleness, Staleness


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """When and where models are measured.

    Args:
      every: Measure after every this many rounds, and after the last one, ≥ 1.
      initial: Measure the model before training too.
      central: Measure on the official test set, where there is one.
      clients: Whose held-out examples to measure on: ``"all"``, ``"cohort"`` (those who trained this
        round), ``"none"``, a number of clients drawn once, or ``"auto"``: all if they hold any held-out
        examples and are at most 1,000, else 1,000 of them; 100 where a secure sum adds up what they measure.
      split: Which part of the clients' data is reported. Where clients keep a validation part back,
        it is measured too, and models are compared on it.
      robust: Measure the official test set a second time, all inputs moved so against the model, by its own gradients;
        ``robust_accuracy`` and ``robust_loss`` then stand among its metrics. None does not. The accuracy is an upper
        bound: a stronger perturbation may do more.
    """

    every: int = 1
    initial: bool = True
    central: bool = True
    clients: int | Literal["auto", "all", "cohort", "none"] = "auto"
    split: Literal["train", "validation", "test"] = "test"
    robust: Perturbation | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise SettingError("every", f"must be at least 1 round, got {self.every}")
        if isinstance(self.clients, int) and self.clients < 1:
            raise SettingError("clients", f'must be at least 1, "auto", "all", "cohort" or "none", got {self.clients}')
        if self.robust is None:
            return
        if not self.central:
            raise SettingError("robust", "is measured on the official test set, and central = false measures none")
        if self.robust.share != 1:
            raise SettingError(
                "robust",
                f"moves every example that a model is measured on; its share must be 1, got {self.robust.share}",
            )


@dataclass(frozen=True, kw_only=True)
class StopSettings:
    """When to stop before the last round.

    Args:
      patience: Stop after this many rounds without a better objective, ≥ 1; None never does.
      min_delta: What counts as better, in the objective's unit, ≥ 0.
      target: Stop once the objective is at least as good as this; None never does.
    """

    patience: int | None = None
    min_delta: float = 0.0
    target: float | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise SettingError("patience", f"must be at least 1 round, got {self.patience}")
        if not self.min_delta >= 0:
            raise SettingError("min_delta", f"must not be negative, got {self.min_delta}")


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """What is done about clients that are slow, away or unwilling.

    All of it counts over the network. In a simulation, `deadline`, `over_select`, `stragglers`, `concurrency`,
    `max_staleness` and `staleness` do where its clients have devices, in simulated seconds; else nobody is slow.

    With ``stragglers = "buffer"`` rounds are asynchronous as in FedBuff: a round ends as soon as as many updates as the
    cohort's size have come, whoever they are from; clients that still work are not asked again, and their updates
    count when they come, with their weight times `staleness`. Who finishes makes room for the next, who starts at once
    from the newest model; where updates are hidden, or the run is private, with the next round. The cohort's size is
    then the buffer (`K` in the paper), and `concurrency`, or `over_select` times that size, is how many clients are at
    work (`M_c`).

    Args:
      deadline: Seconds for one exchange with clients, > 0; None waits as long as their sites are there.
      rejoin: Seconds that a lost site is waited for, ≥ 0. Then its clients fail, and rounds go on without them
        until it is back.
      over_select: Factor ≥ 1 by which the cohort is enlarged; training ends once as many updates as the cohort was to
        have had have come.
      stragglers: Late updates are dropped, or buffered for a later round.
      concurrency: Clients at work at a time in asynchronous rounds, ≥ the cohort's size; None: as `over_select` says.
      max_staleness: Rounds after which a buffered update is of no use, ≥ 1.
      staleness: What the weight of a buffered update is multiplied with, by the rounds that it came late.
      min_sites: Fewer sites that are ready and willing end the run before its first round, ≥ 1.
      sites: Names of those that are asked; empty for all.
      prepare: Seconds that sites have to describe their data, and again to get ready, > 0.

    References:
      Nguyen et al. 2022, arXiv:2106.06639, algorithm 1 and section 5 (the discount). It divides by K; here, as in every
      weighted mean, the sum is divided by the discounted weights, and the strategy `fedbuff` puts the difference right.
    """

    deadline: float | None = None
    rejoin: float = 300.0
    over_select: float = 1.0
    stragglers: Literal["drop", "buffer"] = "drop"
    concurrency: int | None = None
    max_staleness: int = 10
    staleness: Staleness = field(default_factory=PolynomialStaleness)
    min_sites: int = 1
    sites: tuple[str, ...] = ()
    prepare: float = 300.0

    def __post_init__(self) -> None:
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise SettingError("deadline", f"must be above 0 seconds, or none; got {self.deadline}")
        if not 0 <= self.rejoin < math.inf:
            raise SettingError("rejoin", f"must be 0 seconds or more, got {self.rejoin}")
        if not 1 <= self.over_select <= 100:
            raise SettingError("over_select", f"must be a factor from 1 to 100, got {self.over_select}")
        if self.stragglers not in ("drop", "buffer"):
            raise SettingError("stragglers", f'must be "drop" or "buffer", got "{self.stragglers}"')
        self._check_concurrency()
        if self.max_staleness < 1:
            raise SettingError("max_staleness", f"must be at least 1 round, got {self.max_staleness}")
        if self.min_sites < 1:
            raise SettingError("min_sites", f"must be at least 1, got {self.min_sites}")
        if len(set(self.sites)) < len(self.sites):
            raise SettingError("sites", f"must name each site once, got {list(self.sites)}")
        if self.sites and len(self.sites) < self.min_sites:
            raise SettingError("min_sites", f"is {self.min_sites}, but only {len(self.sites)} sites are named")
        if not 0 < self.prepare < math.inf:
            raise SettingError("prepare", f"must be above 0 seconds, got {self.prepare}")

    def _check_concurrency(self) -> None:
        if self.concurrency is None:
            return
        if self.concurrency < 1:
            raise SettingError("concurrency", f"must be at least 1 client, got {self.concurrency}")
        if self.stragglers != "buffer":
            raise SettingError(
                "concurrency",
                "is how many clients are at work in asynchronous rounds, and these wait for theirs",
                hint='use stragglers = "buffer"; or over_select, which asks more than are waited for',
            )
        if self.over_select != 1:
            raise SettingError(
                "concurrency", f"and over_select = {self.over_select:g} say the same in two ways", hint="leave out one"
            )


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """Everything that the round loop is told.

    Args:
      rounds: Rounds to run, ≥ 1.
      seed: Of all reproducible randomness.
      cohort: Who trains in a round.
      reserves: Clients that a round draws beyond `cohort`, ≥ 0: its transport asks them one by one, as others finish.
      min_clients: A round with fewer usable updates is abandoned, ≥ 1.
      evaluate: When and where models are measured.
      stop: When to stop early.
    """

    rounds: int
    seed: int = 0
    cohort: Selector = field(default_factory=Everyone)
    reserves: int = 0
    min_clients: int = 1
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    stop: StopSettings = field(default_factory=StopSettings)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise SettingError("rounds", f"must be at least 1, got {self.rounds}")
        if self.min_clients < 1:
            raise SettingError("min_clients", f"must be at least 1, got {self.min_clients}")
