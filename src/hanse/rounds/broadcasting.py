"""`Broadcaster`: a strategy's broadcasts as the pipeline has them travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from hanse.core.messages import Broadcast
from hanse.core.params import Params
from hanse.core.stage_round import StageState
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.downlink import encoded
from hanse.pipeline.pipeline import Pipeline


class Broadcaster:
    """Encodes a run's broadcasts; the model before round 1 is kept only where they are differences to it.

    Args:
      pipeline: The run's.
      seed: The job's.
      initial: Makes the shared model before round 1.
    """

    def __init__(self, pipeline: Pipeline, seed: int, *, initial: Callable[[], Params]) -> None:
        self._pipeline = pipeline
        self._seed = seed
        self._make = initial

    def __call__(
        self, broadcast: Broadcast, number: int, *, cohort: int, states: Mapping[str, StageState]
    ) -> Broadcast:
        """The broadcast of a round, with what travels and what clients make of it.

        Args:
          broadcast: The strategy's.
          number: The round.
          cohort: Clients that are asked.
          states: Of the stages, before the round.

        Raises:
          RunError: A stage can't encode the model.
        """
        given = PipelineRound(round=number, seed=self._seed, cohort=max(1, cohort), states=states)
        return encoded(self._pipeline, broadcast, given, initial=lambda: self._initial)

    @cached_property
    def _initial(self) -> Params:
        return self._make()
