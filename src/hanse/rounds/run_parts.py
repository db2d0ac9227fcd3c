"""What a run is made of, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hanse.core.messages import TrainPhase, Update
from hanse.core.params import Params
from hanse.core.protocols import ServerState, Strategy, Task, Transport
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.evaluation import CentralEvaluation
from hanse.rounds.hidden_numbers import AddsNumbers, Exchange
from hanse.rounds.hidden_updates import HiddenSums
from hanse.rounds.history import History
from hanse.rounds.journal import Journal
from hanse.rounds.privacy.run import RunPrivacy
from hanse.rounds.selection import Population
from hanse.rounds.settings import FederationSettings
from hanse.rounds.spans import NO_SPANS, Spans


class OwnExamples(Protocol):
    """Examples that the server has for itself."""

    def update(self, phase: TrainPhase) -> Update:
        """What comes of the round's work on them; raises `RunError`."""
        ...

    def loss(self, phase: TrainPhase, delta: Params) -> float:
        """The mean loss on them of the phase's model plus a delta."""
        ...


@dataclass(frozen=True, kw_only=True)
class SimulatedAttack:
    """What a run says of an attack that is simulated in it.

    Args:
      among: `(cohort, round)` to those of the cohort who are hostile.
      success: Measures on examples with the attack's trigger, labelled with what the attacker wants; None where it has
        none.
    """

    among: Callable[[Sequence[str], int], frozenset[str]]
    success: CentralEvaluation | None = None


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """What a run is made of.

    Args:
      strategy: Update rule and local work.
      task: What is learned.
      pipeline: From single updates to one aggregate.
      transport: Reaches the clients.
      journal: Makes rounds durable.
      population: Everybody who may be selected.
      central: Measures on the server's test set, or None where there is none.
      robust: Measures on the same, its inputs moved against the model, or None where nobody asks for it.
      held_out: Names of the parts that clients keep back from training.
      federation: What is done about late updates.
      spans: Told what the loop does, where a profile is wanted.
      simulated: Whether noise that protects somebody is drawn from the job's seed, so that a run can be repeated; in a
        federation it never is.
      privacy: Charged before each release; None where nothing is promised.
      sums: How sums are made of what clients hold back; None where the transport's do not.
      numbers: Makes what adds up clients' answers where the pipeline hides them, around what asks clients; without it,
        clients of such a pipeline are asked for updates alone.
      root: Examples of the server's own, for aggregators that hold updates against what they say; None where it has
        none.
      attack: The attack that is simulated; None where all are honest.
    """

    strategy: Strategy[Any]
    task: Task
    pipeline: Pipeline
    transport: Transport
    journal: Journal
    population: Population
    central: CentralEvaluation | None = None
    robust: CentralEvaluation | None = None
    held_out: frozenset[str] = frozenset()
    federation: FederationSettings = field(default_factory=FederationSettings)
    spans: Spans = NO_SPANS
    simulated: bool = True
    privacy: RunPrivacy | None = None
    sums: HiddenSums | None = None
    numbers: Callable[[Exchange], AddsNumbers] | None = None
    root: OwnExamples | None = None
    attack: SimulatedAttack | None = None


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended."""

    status: Literal["finished", "stopped early"]
    state: ServerState
    history: History
