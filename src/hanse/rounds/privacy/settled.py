"""`SettledPrivacy`: a private run, ready to start."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.pipeline.correlated import Factorisation
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.accountant import Spent, account, round_grid
from hanse.privacy.budget import Budget
from hanse.privacy.events import Event, LocalEpsilon, Repeated
from hanse.privacy.participation import Participation
from hanse.rounds.privacy.local import randomising_stage
from hanse.rounds.settings import RoundSettings


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
    in_full: Event | None = None

    @property
    def cost_of_asking(self) -> Event:
        """What a round costs a client that is asked in it; with a factorisation, all rounds together, once."""
        return self.event if self.in_full is None else self.in_full

    @property
    def local(self) -> bool:
        """Whether clients add the noise, and not the server."""
        return self.pipeline.mechanism is None

    @property
    def noise_multiplier(self) -> float:
        """Of the mechanism, or of the stage at the clients."""
        noisy = self.pipeline.mechanism or randomising_stage(self.pipeline)
        assert noisy is not None
        assert noisy.noise_multiplier is not None
        return noisy.noise_multiplier

    def planned(self) -> Spent | None:
        """What all rounds cost together; None without a delta that they need."""
        return None if self._untold else account([self._whole(self.rounds)], delta=self.delta)

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
        return self.event if self.factorisation is not None else Repeated(event=self.event, count=rounds)
