"""The seams of Hanse: what a task, a strategy, an aggregator, a stage and a transport are.

Anything with these methods fits; no base class is needed. `hanse.testing` has a conformance
check for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.judged_round import JudgedRound, Memory
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, ClientFailure, Phase, Receipt, Reply, Summed, Sums, TrainPhase, Update
from hanse.core.params import Params, ParamSpec
from hanse.core.personal_model import PersonalModel
from hanse.core.stage_round import StageRound, StageState

Weighting = Literal["examples", "uniform"]
"""How a mean weighs clients: by their training examples, or all alike."""


class ServerState(Protocol):
    """A strategy's state: a frozen dataclass of `Params`, numbers and tuples or dicts of these."""

    @property
    def params(self) -> Params:
        """The model that is evaluated, kept and, unless the strategy says otherwise, broadcast."""
        ...


S = TypeVar("S", bound=ServerState)


class Strategy(Protocol[S]):
    """Server state, the update rule, and the local work that its paper prescribes.

    It never samples, sends, clips, logs or averages.
    """

    @property
    def weighting(self) -> Weighting:
        """How the pipeline's mean weighs clients."""
        ...

    def init(self, params: Params) -> S:
        """The state before the first round."""
        ...

    def local_work(self, round_number: int) -> LocalWork:
        """What clients do in round `round_number` (from 1)."""
        ...

    def step(self, state: S, aggregate: Aggregate) -> S:
        """The state after a round's aggregate came in."""
        ...


@runtime_checkable
class Broadcasts(Protocol):
    """A strategy that sends more than its parameters, or others."""

    def broadcast(self, state: Any, round_number: int) -> Broadcast:
        """What each client of the cohort receives."""
        ...


@runtime_checkable
class NeedsFresh(Protocol):
    """A strategy to which updates of earlier rounds are of no use."""

    @property
    def why_fresh(self) -> str:
        """What they would do to it, as a clause without a subject."""
        ...


@runtime_checkable
class ReadsLosses(Protocol):
    """A strategy whose `step` looks at `Aggregate.sums`, which private runs leave empty."""

    @property
    def reads_losses(self) -> bool:
        """Whether it is set to."""
        ...


@runtime_checkable
class Personalises(Protocol):
    """A strategy by which each client has a model of its own beside the shared one.

    Where clients merely keep some tensors (`LocalWork.personal`) this is not needed: the model that they measure is
    their own.
    """

    def personal_model(self, round_number: int) -> PersonalModel:
        """How it is had after round `round_number` (0 is before training)."""
        ...


@runtime_checkable
class ChecksClients(Protocol):
    """A strategy that only some federations can have."""

    def check_clients(self, clients: Sequence[str], cohort: int) -> None:
        """Whether this one can, before anything runs.

        Args:
          clients: The population, in order.
          cohort: How many of them a round has.

        Raises:
          SettingError: It can't; which setting does not suit it.
        """
        ...


class Preprocess(Protocol):
    """A change of the inputs, fitted to sums over training examples."""

    @property
    def scope(self) -> Literal["federated", "client"]:
        """Whether one fit serves all (sums over all clients) or each client fits its own."""
        ...

    def local_statistics(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """Additive sums over the inputs `[n, ...]`, in float64."""
        ...

    def apply(self, x: np.ndarray, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
        """The inputs as the model sees them, of the same length."""
        ...


class Task(Protocol):
    """What is learned. A trainer asks for more, each in a protocol of its own."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def preprocess(self) -> Preprocess | None:
        """How inputs are prepared, or None."""
        ...

    @property
    def objective(self) -> tuple[str, Literal["max", "min"]]:
        """The metric by which models are compared, and which way is better."""
        ...

    def init_params(self, seed: int) -> Params:
        """The model before training; the same for the same seed."""
        ...

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Metrics from additive sums, of one client or of many added up."""
        ...

    def check(self, x: np.ndarray, y: np.ndarray) -> None:
        """Try the model on a few examples (already preprocessed).

        Raises:
          TaskError: Model, loss and data do not fit together.
        """
        ...


class Aggregator(Protocol):
    """Many updates into one: a monoid (`zero`, `accumulate`, `merge`, `finish`).

    Accumulators may be changed in place by `accumulate` and `merge`.
    """

    @property
    def needs_all(self) -> bool:
        """Whether it must see all updates at once (median, Krum), so that it can't stream."""
        ...

    def zero(self, spec: ParamSpec) -> Any:
        """An accumulator of nothing."""
        ...

    def accumulate(self, accumulator: Any, update: Update, weight: float) -> Any:
        """The accumulator with one more update, of weight ≥ 0."""
        ...

    def merge(self, left: Any, right: Any) -> Any:
        """Two accumulators as one."""
        ...

    def finish(self, accumulator: Any) -> Aggregate:
        """The aggregate.

        Raises:
          TooFewClientsError: Nothing was accumulated, or all weights are zero.
        """
        ...


@runtime_checkable
class CombinesSums(Aggregator, Protocol):
    """An aggregator of several sums, each of which the stages finish by itself before they are made into one."""

    def opened(self, accumulator: Any) -> Sequence[Aggregate]:
        """The sums that could be opened."""
        ...

    def combined(self, aggregates: Sequence[Aggregate]) -> Aggregate:
        """All of them as one, once the stages have finished each; raises `TooFewClientsError`."""
        ...


@runtime_checkable
class Judges(Aggregator, Protocol):
    """An aggregator that holds updates against each other; it may draw, remember, or need an update of the server's."""

    @property
    def needs_root(self) -> bool:
        """Whether the server has to have an update of its own."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether `Aggregate.memory` carries anything to the next round."""
        ...

    def check_number(self, updates: int) -> None:
        """Whether so many updates are enough; raises `TooFewClientsError`."""
        ...

    def quarantined(self, memory: Memory) -> Mapping[str, str]:
        """Clients that are not to be asked any more, and why, as a clause without a subject.

        Args:
          memory: What the last aggregate carried.
        """
        ...

    def judging(self, given: JudgedRound) -> Aggregator:
        """The aggregator that does a round's work."""
        ...


class Stage(Protocol):
    """A two-sided transform of updates: `encode` on the client, `decode` and `finish` on the server."""

    @property
    def additive(self) -> bool:
        """Decoding the sum of encodings equals the sum of decodings."""
        ...

    @property
    def needs_uniform_weights(self) -> bool:
        """Whether example-weighted averaging is refused."""
        ...

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half."""
        ...

    def decode(self, update: Update) -> Update:
        """The server's half for one reply; used where a stage right of it, or itself, is not additive."""
        ...

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the aggregate; used where replies were not decoded one by one."""
        ...


@runtime_checkable
class ChangesLayout(Protocol):
    """A stage whose encoded deltas have another layout: whole numbers, a padded rotation, fewer elements."""

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec | None:
        """The layout of an encoded delta that had `spec` before; None where it differs from update to update."""
        ...


@runtime_checkable
class PerRound(Protocol):
    """A stage that works another way each round: by randomness that both sides share, or by a state of its own."""

    def in_round(self, given: StageRound) -> Stage:
        """The stage that does a round's work."""
        ...


@runtime_checkable
class Adapts(PerRound, Protocol):
    """A stage with a state that each round's aggregate moves on, such as a clipping norm."""

    def initial_state(self) -> StageState:
        """The state before round 1."""
        ...

    def next_state(self, state: StageState, measured: Mapping[str, float]) -> StageState:
        """The state after a round.

        Args:
          state: Before it.
          measured: What this stage's `finish` measured on the round's aggregate.
        """
        ...


@runtime_checkable
class Remembers(Protocol):
    """A stage that keeps a vector at each client from round to round, such as what was not sent yet."""

    @property
    def remembers(self) -> bool:
        """Whether it is set to keep anything."""
        ...

    def encode_and_keep(
        self, update: Update, kept: Params | None, rng: np.random.Generator
    ) -> tuple[Update, Params | None]:
        """The client's half, and what the client keeps if the update counts; `encode` is this with nothing kept."""
        ...


@runtime_checkable
class Restricts(Protocol):
    """A stage that lets local training move some elements only, those that it will send; it stands first."""

    @property
    def restricts(self) -> bool:
        """Whether it is set to."""
        ...

    def trained(self, client: str) -> np.ndarray:
        """`[P]` of bool: which elements of the shared model a client's steps may move in this round."""
        ...


@runtime_checkable
class Projects(Restricts, Protocol):
    """A stage that lets matrices move within a subspace only, by projecting their gradients."""

    @property
    def rank(self) -> int:
        """Of the subspace, ≥ 1."""
        ...

    def bases(self, client: str) -> np.ndarray:
        """`[P]`: for each matrix `[n, m]` (`is_factored`) an orthonormal `[rank, m]` in its first rows, and zeros."""
        ...


@runtime_checkable
class Shrinks(Restricts, ChangesLayout, Stage, Protocol):
    """A stage that has all clients of a round train the same smaller model.

    Where they start, what they do not train is zero, so it is not sent to them either: the stage's `encode` and
    `decode` serve for the model on its way down too.
    """

    @property
    def shrinks(self) -> bool:
        """Whether it is set to."""
        ...

    def lookalikes(self, params: Params) -> tuple[Params, Params]:
        """Two models that give the same outputs wherever leaving out these elements is to train a smaller model."""
        ...


@runtime_checkable
class Admits(Protocol):
    """A stage that looks at what its clients sent beside the delta while replies stay encoded as far as it."""

    def admit(self, update: Update) -> Update:
        """The update as it may be added to others.

        Raises:
          UpdateError: What was sent is none of `encode`'s.
        """
        ...


@runtime_checkable
class Clips(Protocol):
    """A stage that bounds what one client can move the aggregate by, which privacy mechanisms build on.

    With a mechanism behind it the server opens each reply as far as this stage, and bounds it once more itself.
    """

    @property
    def sensitivity(self) -> float:
        """Largest L2 norm of an update, the strategy's vectors included, > 0; of a stage that adapts, this round's."""
        ...

    @property
    def tells(self) -> Mapping[str, float]:
        """Vectors of one number that the stage itself adds to updates, each in [-1/2, 1/2].

        Name to the standard deviation of the noise on their sum in a private run, over the expected cohort's size.
        """
        ...

    def clipped(self, update: Update) -> Update:
        """The update within the bound, what it tells included."""
        ...


@runtime_checkable
class Randomises(Protocol):
    """A stage that makes a client's report private before it leaves the client, so that no server needs to be trusted.

    Its `encode` is given randomness of the operating system, unless the run is a simulation.
    """

    @property
    def noise_multiplier(self) -> float | None:
        """Scale of the noise over the norm that updates are clipped to; None where a budget is to say it."""
        ...

    def with_noise(self, noise_multiplier: float) -> Stage:
        """The same with this much noise."""
        ...

    def report(self) -> Any:
        """What one report is, for an accountant: a value of `hanse.privacy.events`."""
        ...


@runtime_checkable
class SharesNoise(Protocol):
    """A stage by which clients add noise in shares: the sum of enough encodings is private, a single one hardly.

    Its `encode` is given randomness of the operating system, unless the run is a simulation.
    """

    def release_of_sum(self, num_shares: int, dimension: int) -> Any:
        """What a sum is, for an accountant: a value of `hanse.privacy.events`.

        Args:
          num_shares: Clients whose noise is surely in it.
          dimension: Elements.
        """
        ...


class Transport(Protocol):
    """Moves phases to clients and replies back."""

    @property
    def clients(self) -> Sequence[str]:
        """Everybody who can be asked."""
        ...

    def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[Reply]:
        """Ask each client once; exactly one reply for each, in any order, as they come."""
        ...

    def close(self) -> None:
        """Let go of processes and connections; safe to call twice."""
        ...


@runtime_checkable
class SumsUp(Protocol):
    """A transport that adds updates up where they are made, so that sums travel and single updates do not."""

    def sum_up(self, phase: TrainPhase, clients: Sequence[str]) -> Iterator[Receipt | ClientFailure | Summed | None]:
        """Ask each client once, and add up the updates with the pipeline's aggregator, which must stream.

        Yields one `Receipt` or `ClientFailure` for each client, in the order of `clients`, and at the end the `Summed`
        that accumulating one update after the other in this order gives, bit by bit. None in between means nothing:
        the caller may look whether it still wants to wait.
        """
        ...


@runtime_checkable
class HoldsBack(Protocol):
    """A transport whose clients may hold back what they would answer, so that sums alone are learnt of it."""

    @property
    def holds_back(self) -> bool:
        """Whether they do: they answer `Held`, and take the steps of sums that `SumPhase`s tell them."""
        ...


@runtime_checkable
class TellsPresence(Protocol):
    """A transport that knows who is there at this moment, so that nobody else has to be asked."""

    def present(self) -> Collection[str] | None:
        """Clients that could be asked now; None where nobody can tell."""
        ...


@runtime_checkable
class BringsLate(Protocol):
    """A transport whose clients may answer later than the round that asked them, for asynchronous rounds.

    Of a `TrainPhase`'s clients the last ones, as many as its `reserves`, are not asked at once: the first of them is
    when somebody at work has answered or is lost, in this round or for an earlier one, and so on in turn. Who was not
    asked when the round is over has the reply `ReplyFailure.UNASKED`.
    """

    def working(self) -> Collection[str]:
        """Clients that still work for an earlier round; they are not asked again before they have answered."""
        ...

    def late(self, round_number: int) -> Iterator[Reply]:
        """Replies to training of rounds before `round_number` that no commit has taken in yet, by round and client."""
        ...
