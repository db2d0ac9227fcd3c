"""A round's metrics: of the model that it ended with, on the server's test set and on clients' own examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hanse.core.grouped import Grouped
from hanse.core.messages import EvaluatePhase, Statistics
from hanse.core.params import Params
from hanse.core.protocols import Personalises, ServerState, Strategy
from hanse.data.federated import SplitName
from hanse.rounds.evaluation import (
    CentralEvaluation,
    FederatedScores,
    clients_to_evaluate,
    hidden_scores,
    score_clients,
)
from hanse.rounds.hidden_numbers import AddsNumbers, Exchange
from hanse.rounds.history import Metrics, RoundRecord
from hanse.rounds.round_groups import measured_groups
from hanse.rounds.run_parts import RunParts
from hanse.rounds.secure_sum import fewest_updates
from hanse.rounds.settings import RoundSettings


def on_clients(
    strategy: Strategy[Any],
    number: int,
    state: ServerState,
    statistics: Statistics,
    clients: Sequence[str],
    accepted: Callable[[Sequence[str]], Mapping[str, int]],
) -> EvaluatePhase:
    """Asks clients to measure the model that round `number` has ended with; of several, each its group's."""
    personal = strategy.local_work(max(number, 1)).personal
    groups = measured_groups(strategy, state, clients, number).groups if isinstance(strategy, Grouped) else ()
    return EvaluatePhase(
        round=number,
        params=groups[0].broadcast.params if groups else state.params,
        groups=groups,
        personal=personal,
        statistics=statistics,
        accepted=accepted(clients) if personal else {},
    )


def with_own_models(
    strategy: Strategy[Any],
    number: int,
    state: ServerState,
    statistics: Statistics,
    clients: Sequence[str],
    accepted: Callable[[Sequence[str]], Mapping[str, int]],
) -> EvaluatePhase:
    """As `on_clients`, and each client's own model too, where the strategy gives it one."""
    asked = on_clients(strategy, number, state, statistics, clients, accepted)
    if not isinstance(strategy, Personalises):
        return asked
    asked = replace(asked, own=strategy.personal_model(number))
    return replace(asked, accepted=accepted(clients)) if asked.keeps else asked


class Measuring:
    """Measures models, as a run's settings say.

    Args:
      parts: What the run is made of.
      settings: What the loop is told.
      exchange: Asks clients.
      numbers: Adds up what clients measure where nobody sees it; None where all is shown, or nothing asked.
    """

    def __init__(
        self, parts: RunParts, settings: RoundSettings, exchange: Exchange, numbers: AddsNumbers | None
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._exchange = exchange
        self._numbers = numbers

    def __call__(
        self,
        record: RoundRecord,
        state: ServerState,
        statistics: Statistics,
        accepted: Callable[[Sequence[str]], Mapping[str, int]],
    ) -> RoundRecord:
        """The record with metrics of a state's model, or models.

        Args:
          record: Of the round that it is the result of.
          state: The strategy's, after that round.
          statistics: What inputs are prepared with.
          accepted: Which round's update of clients counted last, where they keep parts of the model.
        """
        parts, settings = self._parts, self._settings.evaluate
        personal = parts.strategy.local_work(max(record.round, 1)).personal
        central, by_group = (None, {}) if personal else self._centrally(state, statistics)

        def phase(split: SplitName, clients: Sequence[str]) -> EvaluatePhase:
            # the other part is for comparing shared models
            ask = with_own_models if split == settings.split else on_clients
            return replace(ask(parts.strategy, record.round, state, statistics, clients, accepted), split=split)

        scores = self._on_clients(record, phase, settings.split)
        validation = scores if settings.split == "validation" else None
        if "validation" in parts.held_out and settings.split != "validation":
            validation = self._on_clients(record, phase, "validation")
        asked = {id(found): found for found in (scores, validation) if found is not None}.values()
        mine = scores.personal if scores else None
        if personal and scores and not isinstance(parts.strategy, Personalises):
            mine = scores.pooled  # with the tensors that each client keeps, what was measured is its own model
        notes = [note for note in (record.note, *(found.note for found in asked)) if note]
        return replace(
            record,
            central=central,
            central_by_group=by_group,
            attack={**record.attack, **({} if personal else self._success(state, statistics))},
            federated=scores.pooled if scores else None,
            personal=mine,
            validation=validation.pooled if validation else None,
            clients=scores.clients if scores else (),
            personal_clients=scores.personal_clients if scores else (),
            failures=record.failures + (scores.failures if scores else ()),
            bytes_up=record.bytes_up + sum(found.bytes_up for found in asked),
            bytes_down=record.bytes_down + sum(found.bytes_down for found in asked),
            note="; ".join(notes),
        )

    def _centrally(self, state: ServerState, statistics: Statistics) -> tuple[Metrics | None, dict[str, Metrics]]:
        """Metrics on the server's test set; of several models the mean of all, and each one's."""
        measure, strategy = self._parts.central, self._parts.strategy
        if measure is None or not self._settings.evaluate.central:
            return None, {}
        if not isinstance(strategy, Grouped):
            return self._whole(measure, state.params, statistics), {}
        found: dict[str, Metrics] = {}
        for name, params in strategy.models(state).items():
            found[name] = self._whole(measure, params, statistics)
        names = next(iter(found.values()), {})
        return {name: sum(metrics[name] for metrics in found.values()) / len(found) for name in names} or None, found

    def _whole(self, measure: CentralEvaluation, params: Params, statistics: Statistics) -> Metrics:
        """One model's metrics on the server's test set, as it is and with its inputs moved."""
        task, robust = self._parts.task, self._parts.robust
        found = dict(task.metrics(measure(params, statistics)))
        if robust is not None:
            moved = task.metrics(robust(params, statistics))
            names = dict.fromkeys(("accuracy", "loss", task.objective[0]))
            found |= {f"robust_{name}": moved[name] for name in names if name in moved}
        return found

    def _success(self, state: ServerState, statistics: Statistics) -> Metrics:
        """How often the model does what a simulated backdoor wants; of several models, the mean."""
        attack, strategy = self._parts.attack, self._parts.strategy
        if attack is None or attack.success is None:
            return {}
        models = strategy.models(state).values() if isinstance(strategy, Grouped) else [state.params]
        found = [self._parts.task.metrics(attack.success(params, statistics))["accuracy"] for params in models]
        return {"success": sum(found) / len(found)} if found else {}

    def _on_clients(
        self, record: RoundRecord, phase: Callable[[SplitName, Sequence[str]], EvaluatePhase], split: SplitName
    ) -> FederatedScores | None:
        parts = self._parts
        hidden = parts.pipeline.hides_replies
        clients = clients_to_evaluate(
            self._settings.evaluate,
            parts.population.clients,
            record.cohort,
            seed=self._settings.seed,
            held_out=split in parts.held_out,
            hidden=hidden,
        )
        if not clients or (hidden and self._numbers is None):
            return None
        asked = phase(split, clients)
        if self._numbers is None:
            return score_clients(parts.task, self._exchange(asked, clients), clients, groups=asked.groups)
        found = self._numbers.add_up(asked, clients, least=fewest_updates(parts.pipeline, 1, len(clients)))
        return hidden_scores(parts.task, found, split)
