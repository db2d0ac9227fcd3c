"""What hostile clients send in place of what they trained: crafted from what they know, and encoded like any update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hanse.attacks.attack import Crafts, Seen
from hanse.core.errors import HanseError
from hanse.core.judged_round import JudgedRound
from hanse.core.messages import TrainPhase, Update
from hanse.core.params import Params
from hanse.core.protocols import Aggregator, Judges
from hanse.core.randomness import stream
from hanse.pipeline.pipeline import Pipeline, in_round

Combine = Callable[[Sequence[np.ndarray]], np.ndarray]


class Crafting:
    """Makes a round's hostile updates.

    What attackers see of an update is what the server could: decoded through all stages.

    Args:
      attack: Makes them.
      pipeline: The run's; hostile updates are encoded by its stages.
      seed: The job's.
    """

    def __init__(self, attack: Crafts, pipeline: Pipeline, *, seed: int) -> None:
        self._attack = attack
        self._pipeline = pipeline
        self._seed = seed

    def __call__(self, phase: TrainPhase, updates: Sequence[Update], hostile: frozenset[str]) -> Mapping[str, Update]:
        """What hostile clients send in place of what they trained, by client.

        Args:
          phase: What was asked.
          updates: Everybody's, as their clients encoded them.
          hostile: Who attacks.
        """
        pipeline = in_round(self._pipeline, phase, self._seed)
        found: dict[str, Update] = {}
        for group in sorted({update.group for update in updates}):
            together = sorted((u for u in updates if u.group == group), key=lambda update: update.client)
            mine = [self._decoded(pipeline, update) for update in together if update.client in hostile]
            honest = [u for u in together if u.client not in hostile] if self._attack.knows == "all" else []
            if mine:
                theirs = tuple(self._decoded(pipeline, update).delta.numpy() for update in honest)
                found |= self._crafted(phase, pipeline, mine, theirs, cohort=len(together))
        return found

    def _crafted(
        self, phase: TrainPhase, pipeline: Pipeline, mine: Sequence[Update], honest: tuple[np.ndarray, ...], cohort: int
    ) -> dict[str, Update]:
        alone = self._attack.knows == "own"
        parties = [[update] for update in mine] if alone else [list(mine)]
        found = {}
        for party in parties:
            names = tuple(update.client for update in party)
            seen = Seen(
                round=phase.round,
                members=names,
                own=tuple(update.delta.numpy() for update in party),
                honest=honest,
                num_clients=cohort,
                rng=stream(self._seed, "attack", phase.round, *(names if alone else ())),
                rule=in_force(pipeline.aggregator, mine[0], phase.round) if honest else None,
            )
            for update, own, vector in zip(party, seen.own, self._attack.craft(seen), strict=True):
                if vector is own:
                    continue  # what it trained, as it was encoded
                sent = np.asarray(vector, dtype=update.delta.spec.dtype)
                found[update.client] = self._encoded(pipeline, replace(update, delta=update.delta.with_vector(sent)))
        return found

    def _decoded(self, pipeline: Pipeline, update: Update) -> Update:
        for stage in reversed(pipeline.stages):
            update = stage.decode(update)
        return update

    def _encoded(self, pipeline: Pipeline, update: Update) -> Update:
        def source(place: int) -> np.random.Generator:
            return stream(self._seed, "hostile stage", update.round, update.client, place)

        return pipeline.encode(update, [source(i) for i in range(len(pipeline.stages))])


def in_force(aggregator: Aggregator, like: Update, round_number: int) -> Combine | None:
    """The server's aggregation as attackers can try it out; None where it hangs on what they do not have.

    What an aggregator remembers of earlier rounds is unknown to them; what hides updates comes to their mean.

    Args:
      aggregator: The run's.
      like: Some update, for its layout.
      round_number: The round.
    """
    if isinstance(aggregator, Judges) and aggregator.needs_root:
        return None
    judges = isinstance(aggregator, Judges)

    def combine(rows: Sequence[np.ndarray]) -> np.ndarray:
        if not judges:
            return np.asarray(np.mean(np.stack(rows), axis=0, dtype=np.float64))
        assert isinstance(aggregator, Judges)
        rule = aggregator.judging(JudgedRound(round=round_number, rng=np.random.default_rng(0)))
        total = rule.zero(like.delta.spec)
        for i, row in enumerate(rows):
            vector = np.asarray(row, dtype=like.delta.spec.dtype)
            tried = Update(
                client=f"{i:06d}",
                round=round_number,
                delta=Params(like.delta.spec, vector),
                num_examples=1,
                num_steps=1,
            )
            try:
                total = rule.accumulate(total, tried, 1.0)
            except HanseError:  # refused: as if it had not come
                continue
        try:
            return np.asarray(rule.finish(total).delta.numpy(), dtype=np.float64)
        except HanseError:  # too few are left: nothing comes of the round
            return np.zeros(like.delta.spec.size)

    return combine
