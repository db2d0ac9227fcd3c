"""`Cohorts`: whom each round asks, with a selector that may look at who is there, at losses, or at earlier rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hanse.core.errors import RunError, SettingError
from hanse.core.messages import ClientFailure, EvaluatePhase, Evaluation
from hanse.core.protocols import BringsLate, TellsPresence, Transport
from hanse.rounds.cohort_order import in_order
from hanse.rounds.collector import NOTHING, Tells
from hanse.rounds.held_rounds import HeldRounds
from hanse.rounds.hidden_numbers import Exchange
from hanse.rounds.history import FailureRecord, RoundRecord
from hanse.rounds.selection import (
    Learner,
    Learns,
    Narrows,
    Population,
    Selector,
    Surveyed,
    Surveys,
    cohort_size,
    fitted,
    innermost,
    resized,
)

Survey = Callable[[Sequence[str], int | None], EvaluatePhase]
"""What candidates are asked, and on how many of their examples at most."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Whom a round asks.

    Args:
      cohort: Client ids, each once.
      reserves: How many of them, the last ones, are asked only as others finish.
      failures: Candidates that could not say what they were asked before.
      bytes_down: Bytes of the model as it was sent to candidates.
    """

    cohort: tuple[str, ...]
    reserves: int = 0
    failures: tuple[FailureRecord, ...] = ()
    bytes_down: int = 0


class Cohorts:
    """Selects a run's cohorts.

    Args:
      selector: As the job says.
      reserves: Clients beyond the selector's size that are drawn for places that become free within a round.
      population: Everybody who may be selected.
      transport: The run's; may know who works still, and who is there.
      held: What rounds are that hold answers back.
      exchange: Asks clients.
    """

    def __init__(
        self,
        selector: Selector,
        population: Population,
        *,
        reserves: int = 0,
        transport: Transport,
        held: HeldRounds,
        exchange: Exchange,
    ) -> None:
        self._size, self._reserves = cohort_size(selector), reserves
        self._selector = _larger(selector, reserves)
        self._population = population
        self._transport = transport
        self._held = held
        self._exchange = exchange
        inner = innermost(selector)
        self._learner: Learner | None = inner.learner(population) if isinstance(inner, Learns) else None
        measures = isinstance(inner, Learns) and inner.clock == "measured"
        self.tells = NOTHING if self._learner is None else Tells(losses=True, seconds=measures)
        """What of clients' training the selector is to be told in records."""

    def learn(self, record: RoundRecord) -> None:
        """Take in a committed round; each once, in order."""
        if self._learner is not None and record.round:
            # what a history does not hold of earlier rounds, and what no two runs have alike
            self._learner.learn(replace(record, clients=(), seconds={}, profile={}))

    def asked(
        self, number: int, rng: np.random.Generator, survey: Survey, *, without: frozenset[str] = frozenset()
    ) -> Asked:
        """The cohort of a round.

        Args:
          number: The round.
          rng: For chance.
          survey: What candidates are asked, where the selector asks them.
          without: Clients that are not selected; their places are others'.

        Raises:
          RunError: The selector names a client twice.
        """
        transport = self._transport
        working = frozenset(transport.working()) if isinstance(transport, BringsLate) else frozenset()
        found = Asked(cohort=())

        def selected() -> tuple[str, ...]:
            nonlocal found
            found = self._parted(self._selected(number, rng, working, survey, without), rng, num_working=len(working))
            return found.cohort

        cohort = self._held.asked(number, selected)
        if len(set(cohort)) < len(cohort):
            raise RunError(
                f"round {number}: the cohort names a client twice: {list(cohort)[:12]}",
                hint="a selector returns each client once",
            )
        return replace(found, cohort=cohort)

    def _selected(
        self,
        number: int,
        rng: np.random.Generator,
        working: frozenset[str],
        survey: Survey,
        without: frozenset[str],
    ) -> Asked:
        population, selector = self._population.without(working | without), self._selector
        while isinstance(selector, Narrows):
            population = selector.narrowed(population, number, self._present())
            selector = selector.among
        tight = self._fewer(population) or self._reserves
        fitting = fitted(selector, population, working=len(working)) if tight else selector
        if fitting is None:
            return Asked(cohort=())
        if self._learner is not None:
            most = cohort_size(fitting) or len(population.clients)
            named = self._learner.select(population, number, rng, most=most)
        else:
            named = fitting.select(population, number, rng)
        if self._fewer(population):  # who names clients, and does not draw them, may name some that are not there
            there = frozenset(population.clients)
            named = tuple(client for client in named if client in there)
        if not isinstance(fitting, Surveys):
            return Asked(cohort=named)
        return self._surveyed(fitting, named, number, rng, survey)

    def _parted(self, found: Asked, rng: np.random.Generator, *, num_working: int) -> Asked:
        """Those that places are free for, in their order; behind them those in reserve, drawn by lot."""
        places = max(0, (self._size or 0) - num_working)
        if not self._reserves or self._size is None or len(found.cohort) <= places:
            return found
        lots = rng.permutation(len(found.cohort)).tolist()  # not those that stand first in the federation
        first, later = sorted(lots[:places]), lots[places:]
        return replace(found, cohort=tuple(found.cohort[i] for i in (*first, *later)), reserves=len(later))

    def _fewer(self, population: Population) -> bool:
        return len(population.clients) < len(self._population.clients)

    def _present(self) -> frozenset[str] | None:
        if not isinstance(self._transport, TellsPresence):
            return None
        present = self._transport.present()
        return None if present is None else frozenset(present)

    def _surveyed(
        self, selector: Surveys, candidates: Sequence[str], number: int, rng: np.random.Generator, survey: Survey
    ) -> Asked:
        """Those of the candidates that the selector chooses once it knows their losses."""
        if not candidates:
            return Asked(cohort=())
        phase = survey(candidates, selector.examples)
        told: dict[str, Surveyed] = {}
        failures = []
        for reply in in_order(self._exchange(phase, candidates), candidates):
            if isinstance(reply, ClientFailure):
                failures.append(_lost(reply))
            elif isinstance(reply, Evaluation) and reply.sums.get("count"):
                count = reply.sums["count"]
                loss = reply.sums.get("loss", math.nan) / count
                if math.isfinite(loss) and 0 < count < math.inf:
                    told[reply.client] = Surveyed(loss=loss, num_examples=int(count))
        nbytes = phase.params.spec.nbytes * len(candidates)
        return Asked(cohort=selector.choose(told, number, rng), failures=tuple(failures), bytes_down=nbytes)


def _larger(selector: Selector, reserves: int) -> Selector:
    """The selector with a cohort so much larger, as far as its other settings go."""
    size = cohort_size(selector)
    if size is None:
        return selector
    for more in range(reserves, 0, -1):
        try:
            return resized(selector, size + more)
        except SettingError:  # such as more clients than candidates
            continue
    return selector


def _lost(reply: ClientFailure) -> FailureRecord:
    return FailureRecord(client=reply.client, kind=reply.kind, message=reply.message, during="survey")
