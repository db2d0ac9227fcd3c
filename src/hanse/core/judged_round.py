"""`JudgedRound`: what an aggregator knows of a round in which it judges single updates, and what it says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hanse.core.messages import Update
from hanse.core.params import Params

Memory = Mapping[str, np.ndarray]
"""What an aggregator carries from round to round, by name: the server's, durable, and told to nobody."""


@dataclass(frozen=True, kw_only=True)
class JudgedRound:
    """One round.

    Args:
      round: From 1.
      rng: For what the server draws: buckets, noise.
      memory: What the aggregate of the last round that counted carried; empty before.
      root: The update that the server has computed on examples of its own; None where it has none.
      root_loss: A delta to the loss, on those examples, of the model that it is added to; None likewise.
    """

    round: int
    rng: np.random.Generator
    memory: Memory = field(default_factory=dict)
    root: Update | None = None
    root_loss: Callable[[Params], float] | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an aggregator says of one client's update.

    Args:
      client: Whose.
      weight: By how much it went in; None where that differs from element to element.
      scores: Numbers by which it was judged, by name.
      reason: Why it stands out, as a clause without a subject; empty where it does not.
      quarantined: Whether its client is not asked any more.
    """

    client: str
    weight: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    quarantined: bool = False
