"""`RoundTraining`: a round's cohort trains, and what comes of it is taken in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from hanse.core.events import Sink
from hanse.core.judged_round import JudgedRound, Memory
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, Phase, Reply, TrainPhase
from hanse.core.params import ParamSpec
from hanse.core.protocols import BringsLate, Judges, SumsUp
from hanse.core.randomness import from_system, stream
from hanse.pipeline.pipeline import Pipeline, in_round
from hanse.rounds.cohort_order import in_order
from hanse.rounds.collector import NOTHING, Collected, Collector, Tells
from hanse.rounds.held_rounds import HeldRounds
from hanse.rounds.hidden_updates import gather_updates
from hanse.rounds.round_groups import RoundGroups
from hanse.rounds.run_parts import RunParts
from hanse.rounds.secure_sum import fewest_updates, summed_securely
from hanse.rounds.settings import RoundSettings

Exchange = Callable[[Phase, Sequence[str]], Iterator[Reply]]


class RoundTraining:
    """Has cohorts train, one round after the other.

    Args:
      parts: What the run is made of.
      settings: What the loop is told.
      held: What rounds are that hold answers back.
      tells: What of clients' training is kept, for a selector that learns.
      emit: Told of every update and failure.
      exchange: Asks clients.
      check_stop: Called while sums come; raises where the run is to stop.
    """

    def __init__(
        self,
        parts: RunParts,
        settings: RoundSettings,
        *,
        held: HeldRounds,
        tells: Tells,
        emit: Sink,
        exchange: Exchange,
        check_stop: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._held = held
        self._tells = tells
        self._emit = emit
        self._exchange = exchange
        self._check_stop = check_stop
        self._spans = parts.spans
        self._uploads: dict[str, ParamSpec] = {}  # layouts of what the strategy has uploaded beside deltas

    def __call__(
        self, phase: TrainPhase, cohort: Sequence[str], groups: RoundGroups | None, *, memory: Memory
    ) -> Collected:
        """What came of a phase.

        Args:
          phase: What is asked.
          cohort: Who is.
          groups: The phase's groups as the server keeps them; None where there are none.
          memory: What the aggregator carried out of the last round that counted.
        """
        number, transport = phase.round, self._parts.transport
        fewest = self.fewest(len(cohort))
        pipeline = self._judging(self._pipeline(phase, cohort, fewest), phase, memory)
        collector = self._collector(phase, pipeline, groups)
        one_sum = groups is None and not (pipeline.aggregator.needs_all or pipeline.hides_replies)
        if isinstance(transport, SumsUp) and one_sum:
            self._sum_up(transport, phase, cohort, collector)
        elif self._held.hold_back:
            self._gather(pipeline, phase, cohort, collector, least=fewest)
        else:
            for reply in in_order(self._spans.each("clients", self._exchange(phase, cohort)), cohort):
                with self._spans("aggregation"):
                    collector.take(reply)
        if isinstance(transport, BringsLate) and not self._held.hold_back:
            for reply in transport.late(number):
                collector.take_late(reply, max_staleness=self._parts.federation.max_staleness)
        with self._spans("aggregation"):
            collected = collector.finish(min_clients=fewest, before=self._charge(number))
        if collected.aggregate is not None:
            self._uploads = {name: vector.spec for name, vector in collected.aggregate.extras.items()}
        return collected

    @property
    def quiet(self) -> bool:
        """Whether nothing is told of single clients."""
        return self._parts.privacy is not None or self._parts.pipeline.hides_replies

    def fewest(self, cohort: int) -> int:
        """Fewer usable updates abandon a round. Private noise is released over nothing too: silence would tell."""
        fewest, privacy = self._settings.min_clients, self._parts.privacy
        if self._parts.pipeline.hides_replies:
            return fewest_updates(self._parts.pipeline, fewest, self._held.reckoned(cohort))
        return 0 if privacy is not None and privacy.settled.unit == "client" and fewest == 1 else fewest

    def told_size(self, size: int) -> int:
        """How large a cohort clients are told that it is."""
        privacy, size = self._parts.privacy, self._held.reckoned(size)
        return max(1, size) if privacy is None else privacy.told_cohort(size, len(self._parts.population.clients))

    # --- private ------------------------------------------------------------------------------------------------

    def _pipeline(self, phase: TrainPhase, cohort: Sequence[str], fewest: int) -> Pipeline:
        pipeline = in_round(self._parts.pipeline, phase, self._settings.seed)
        if self._parts.privacy is not None:
            pipeline = self._parts.privacy.in_round(pipeline, phase.round)
        return summed_securely(pipeline, phase.round, cohort, seed=self._settings.seed, least=fewest)

    def _judging(self, pipeline: Pipeline, phase: TrainPhase, memory: Memory) -> Pipeline:
        """The pipeline with an aggregator that knows its round, where it holds updates against each other."""
        aggregator = pipeline.aggregator
        if not isinstance(aggregator, Judges):
            return pipeline
        root = self._parts.root
        given = JudgedRound(
            round=phase.round,
            rng=stream(self._settings.seed, "judging", phase.round),
            memory=memory,
            root=root.update(phase) if root is not None and aggregator.needs_root else None,
            root_loss=None if root is None else partial(root.loss, phase),
        )
        return replace(pipeline, aggregator=aggregator.judging(given))

    def _collector(self, phase: TrainPhase, pipeline: Pipeline, groups: RoundGroups | None) -> Collector:
        works = groups.works if groups is not None else (phase.work,)
        return Collector(
            pipeline,
            phase.broadcast.params.spec,
            phase.round,
            self._emit,
            self._server_randomness(phase.round),
            bare=all(own.bare for own in works),
            works=works,
            private=self.quiet,
            extras=self._expected_extras(phase.work, phase.broadcast),
            staleness=self._parts.federation.staleness,
            tells=NOTHING if self.quiet else self._tells,
            group_of=None if groups is None else groups.of,
        )

    def _expected_extras(self, work: LocalWork, broadcast: Broadcast) -> dict[str, ParamSpec]:
        """What clients upload beside deltas; before any did, most likely what they were sent (control variates)."""
        if work.bare:
            return {}
        sent = {name: extra.spec for name, extra in broadcast.extras.items()}
        trainable = broadcast.params.spec.trainable
        return self._uploads or {name: sent.get(name, trainable) for name in work.uploads or sent}

    def _server_randomness(self, number: int) -> list[np.random.Generator]:
        """For the server's half of each stage, and for the mechanism."""
        seed, stages = self._settings.seed, range(len(self._parts.pipeline.stages))
        noise = stream(seed, "mechanism", number) if self._parts.simulated else from_system()
        return [*(stream(seed, "stage at the server", number, i) for i in stages), noise]

    def _charge(self, number: int) -> Callable[[], None]:
        """Writes a round's release into the ledger, where there is one."""
        privacy = self._parts.privacy
        return (lambda: None) if privacy is None else (lambda: privacy.charge(number))

    def _sum_up(self, transport: SumsUp, phase: TrainPhase, cohort: Sequence[str], collector: Collector) -> None:
        for reply in self._spans.each("clients", transport.sum_up(phase, cohort)):
            if reply is not None:
                collector.take_summed(reply)
            self._check_stop()

    def _gather(
        self, pipeline: Pipeline, phase: TrainPhase, cohort: Sequence[str], collector: Collector, *, least: int
    ) -> None:
        sums = self._parts.sums
        assert sums is not None  # who made the transport has said so
        replies = in_order(self._spans.each("clients", self._exchange(phase, cohort)), cohort)
        spec = phase.broadcast.params.spec
        gathered = gather_updates(
            sums,
            pipeline,
            spec,
            phase.round,
            replies,
            least=least,
            exchange=self._exchange,
            late=lambda: self._held.late(phase.round, collector),
        )
        for reply in gathered:
            collector.take_summed(reply)
