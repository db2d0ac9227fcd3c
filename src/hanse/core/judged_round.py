"""`JudgedRound`: what an aggregator knows of a round in which it judges single updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hanse.core.messages import Update

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
    """

    round: int
    rng: np.random.Generator
    memory: Memory = field(default_factory=dict)
    root: Update | None = None
