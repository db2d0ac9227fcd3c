"""Whether leaving units out of a model is to train a smaller one: tried, as its layout alone does not tell."""

from __future__ import annotations

import math
from typing import Any

from hanse.core.errors import PipelineError
from hanse.core.protocols import Shrinks, Strategy, Task
from hanse.data.examples import Examples
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.pipeline import Pipeline
from hanse.trainers.base import Trainer

_KEY = ("", "tried units")


def check_smaller_model(
    pipeline: Pipeline, strategy: Strategy[Any], task: Task, trainer: Trainer, *, seed: int, examples: Examples
) -> None:
    """Measure two models on examples that must give the same outputs where units feed the next layer alone.

    Args:
      pipeline: The run's.
      strategy: Says which tensors are personal.
      task: What is learned.
      trainer: Measures.
      seed: The job's.
      examples: Some, prepared; at least one.

    Raises:
      PipelineError: They do not: units take other ways too, such as around a layer.
    """
    if pipeline.shrinking is None:
        return
    whole = task.init_params(seed)
    shared = whole.select(whole.spec.without(whole.spec.matching(strategy.local_work(1).personal)))
    given = PipelineRound(round=1, seed=seed, cohort=1, states=pipeline.initial_states())
    stage = pipeline.in_round(given, shared.spec).stages[0]
    assert isinstance(stage, Shrinks)
    one, other = (
        trainer.evaluate(whole.overlay(params), _KEY, lambda: examples) for params in stage.lookalikes(shared)
    )
    if all(math.isclose(one[name], other[name], rel_tol=1e-5, abs_tol=1e-6) for name in one):
        return
    raise PipelineError(
        f"stage `{type(stage).__name__}` leaves out units, and in this model a unit goes other ways than into the next "
        "layer, or stands with others under a normalisation",
        hint="use random_k with structured = true, which takes any model",
    )
