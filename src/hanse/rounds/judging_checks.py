"""Whether an aggregator that holds updates against each other can do so in every round of a run."""

from __future__ import annotations

from typing import Any

from hanse.core.errors import PipelineError, TooFewClientsError
from hanse.core.grouped import Grouped
from hanse.core.protocols import Judges, Strategy
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.selection import cohort_size
from hanse.rounds.settings import RoundSettings


def check_judging(
    strategy: Strategy[Any], pipeline: Pipeline, settings: RoundSettings, population: int, *, has_root: bool
) -> None:
    """Whether cohorts are large enough, and what the rule needs is there.

    Args:
      strategy: Update rule and local work.
      pipeline: From single updates to one aggregate.
      settings: What the loop is told.
      population: How many clients there are.
      has_root: Whether the server has examples of its own.

    Raises:
      PipelineError: It is not; what is missing, and what to do.
    """
    aggregator = pipeline.aggregator
    if not isinstance(aggregator, Judges):
        return
    name = type(strategy).__name__
    cohort = min(population, cohort_size(settings.cohort) or population)
    try:
        aggregator.check_number(cohort)
    except TooFewClientsError as problem:
        raise PipelineError(f"pipeline.aggregator: {problem.message} in a round", hint=problem.hint) from None
    if aggregator.needs_root and not has_root:
        raise PipelineError(
            "pipeline.aggregator: the rule compares updates with one of the server's own, and the server has no "
            "examples",
            hint="put some aside for it, such as 100: [data] root = 100; a coordinator of sites has none",
        )
    work = strategy.local_work(1)
    if aggregator.needs_root and (work.remembers or work.personal):
        raise PipelineError(
            f"pipeline.aggregator: the rule compares updates with one of the server's own, and with {name} clients "
            "keep vectors between rounds, which the server does not",
            hint="use a strategy such as fedavg, or another rule",
        )
    if aggregator.needs_root and isinstance(strategy, Grouped):
        raise PipelineError(
            f"pipeline.aggregator: the rule compares updates with one of the server's own, and with {name} each group "
            "has a model of its own, of which the server trains one alone",
            hint="use a strategy such as fedavg, or another rule",
        )
    if aggregator.remembers and isinstance(strategy, Grouped):
        raise PipelineError(
            f"pipeline.aggregator: the rule remembers what the last round gave, and with {name} each round gives "
            "several aggregates",
            hint="use a rule that starts anew in each round, such as median or krum",
        )
