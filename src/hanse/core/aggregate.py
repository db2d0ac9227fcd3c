"""`Aggregate`: what a cohort's updates were made into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hanse.core.errors import PipelineError
from hanse.core.judged_round import Verdict
from hanse.core.messages import Sums
from hanse.core.params import Params


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One update made from many.

    Args:
      delta: The aggregated delta: for a mean `Σ a_k Δ_k / Σ a_k`, for a sum `Σ a_k Δ_k`.
      num_clients: Updates that went in, ≥ 1.
      num_examples: Training examples behind them.
      extras: The further vectors that clients uploaded, aggregated likewise, by name.
      sums: Training metrics of all clients, added up: what was measured on each one's examples while it trained, such
        as ``loss`` and ``count``. Empty in private runs, for they have no noise.
      divisor: What the vectors still have to be divided by, `Σ a_k` for a sum; the pipeline does so once all stages
        have finished.
      measured: Numbers that stages have taken from it, by name, for the round's record.
      noise_stddev: Standard deviation of the noise that privacy has added to each element of the delta, in the delta's
        unit; 0 where there is none, None where it is not known or not the same for all elements.
      population: How many clients there are, of which the cohort was selected; the round loop sets it.
      freshness: `Σ a_k s_k / Σ a_k` in (0, 1], where the weights a_k of late updates were multiplied with factors s_k;
        1 where nothing came late.
      memory: What the aggregator is to be told in the next round, by name; strategies have no use for it.
      verdicts: What the aggregator says of each update, where it judges them.
    """

    delta: Params
    num_clients: int
    num_examples: int
    extras: Mapping[str, Params] = field(default_factory=dict)
    sums: Sums = field(default_factory=dict)
    divisor: float = 1.0
    measured: Mapping[str, float] = field(default_factory=dict)
    noise_stddev: float | None = 0.0
    population: int = 0
    freshness: float = 1.0
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    @property
    def participation(self) -> float:
        """|S| / N, the share of all clients whose updates went in, in (0, 1].

        Raises:
          PipelineError: Nobody has said how many clients there are.
        """
        if not self.population:
            raise PipelineError(
                "the aggregate does not say of how many clients it is",
                hint="outside of the round loop, make it with population = …",
            )
        return self.num_clients / self.population
