"""`SettledPrivacy`: a private run, ready to start."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.pipeline.correlated import Factorisation
from hanse.pipeline.distributed import DistributedNoise
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.accountant import Spent, account, round_grid
from hanse.privacy.budget import Budget
from hanse.privacy.events import Event, LocalEpsilon, Repeated
from hanse.privacy.neighbours import Neighbours
from hanse.privacy.participation import Participation
from hanse.rounds.privacy.local import randomising_stage
from hanse.rounds.privacy.settings import Unit
from hanse.rounds.privacy.steps import ClientSteps
from hanse.rounds.settings import RoundSettings


@dataclass(frozen=True, kw_only=True)
class ExampleClaim:
    """What a run that hides examples costs whom.

    Args:
      every: Rounds in which a client takes part once at most; they are charged together, before the first.
      client: The one whose examples it costs most.
      steps: That client's, in a round.
      most: Epsilon of that client's examples after all rounds; None without a delta.
      least: Epsilon at the client that it costs least.
    """

    every: int
    client: str
    steps: ClientSteps
    most: float | None
    least: float | None


@dataclass(frozen=True, kw_only=True)
class SettledPrivacy:
    """A private run, ready to start.

    Args:
      pipeline: With the mechanism in it, and its noise known.
      settings: The round loop's, with nothing in them that would tell of clients unprotected.
      event: What one round releases; with a factorisation, what all rounds release together.
      rounds: Rounds that are planned.
      budget: What they may cost; None where nothing bounds it.
      delta: At which epsilon is told; None where there is none.
      factorisation: How the rounds' noise hangs together; None where each round's is its own.
      limits: How often a client takes part, where privacy relies on it.
      examples: What is promised to single examples; None where whole clients are protected.
      shares: The mechanism, where clients add noise in shares.
      in_full: What one round releases, towards those who know that the client takes part in it; None where `event`
        relies on nobody not knowing.
    """

    pipeline: Pipeline
    settings: RoundSettings
    event: Event
    rounds: int
    budget: Budget | None
    delta: float | None
    factorisation: Factorisation | None = None
    limits: Participation | None = None
    examples: ExampleClaim | None = None
    shares: DistributedNoise | None = None
    in_full: Event | None = None

    @property
    def unit(self) -> Unit:
        """Who is protected."""
        return "client" if self.examples is None else "example"

    @property
    def cost_of_asking(self) -> Event:
        """What a round costs a client that is asked in it; with a factorisation, all rounds together, once."""
        return self.event if self.in_full is None else self.in_full

    @property
    def local(self) -> bool:
        """Whether each client's report is private by itself."""
        return self.pipeline.mechanism is None and self.shares is None

    @property
    def adds_noise_at_clients(self) -> bool:
        """Whether stages of the pipeline add noise, or shares of it, before anything leaves a client."""
        return self.shares is not None or (self.local and self.examples is None)

    @property
    def needs_secure_sum(self) -> bool:
        """Whether the server is shown more than what is private: replies with a share of the noise, one by one."""
        return self.shares is not None and not getattr(self.pipeline.aggregator, "hides_replies", False)

    @property
    def neighbours(self) -> Neighbours | None:
        """The relation to account under; None lets the events decide."""
        return neighbours_by(self.unit)

    @property
    def noise_multiplier(self) -> float:
        """Of the mechanism, of the stage at the clients, or of their steps."""
        if self.pipeline.example_privacy is not None:
            return self.pipeline.example_privacy.noise_multiplier
        noisy = self.pipeline.mechanism or self.shares or randomising_stage(self.pipeline)
        assert noisy is not None
        assert noisy.noise_multiplier is not None
        return noisy.noise_multiplier

    def planned(self) -> Spent | None:
        """What all rounds cost together; None without a delta that they need."""
        if self._untold:
            return None
        return account([self._whole(self.rounds)], delta=self.delta, neighbours=self.neighbours)

    def curve(self, *, points: int = 6) -> list[tuple[int, float]]:
        """Rounds, and epsilon after them; empty without a delta that they need."""
        if self._untold:
            return []
        rounds = round_grid(self.rounds, points=points) if self.factorisation is None else (self.rounds,)
        return [(n, account([self._whole(n)], delta=self.delta).epsilon) for n in rounds]

    @property
    def _untold(self) -> bool:
        return self.delta is None and not isinstance(self.event, LocalEpsilon)

    def _whole(self, rounds: int) -> Event:
        if self.factorisation is not None:
            return self.event
        return Repeated(event=self.event, count=rounds if self.examples is None else -(-rounds // self.examples.every))


def neighbours_by(unit: str) -> Neighbours | None:
    """The relation to account under for a unit; None lets the events decide.

    How many examples a client has is public, so an example is not taken away: it counts for nothing.
    """
    return "zero-out-one" if unit == "example" else None
