"""`Rule`: many rows into one vector, of which some rows may be anything at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.core.judged_round import Memory


@dataclass(frozen=True, kw_only=True)
class RuleRound:
    """What a rule knows beside the rows.

    Args:
      attackers: f: how many rows may be anything at all, ≥ 0.
      rng: The server's, the same whenever the round is repeated.
      clients: Whose each row is, in order; of mixtures, of several joined by ``+``.
      root: `[P]`: the server's own update; None where it has none.
      memory: What the rule returned in the last round that counted; empty before.
    """

    attackers: int
    rng: np.random.Generator
    clients: tuple[str, ...] = ()
    root: np.ndarray | None = None
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Combined:
    """What a rule makes of a cohort's rows.

    Args:
      vector: `[P]` in float64.
      weights: `[n]`: by how much each row went in, ≥ 0; None where that differs from element to element.
      memory: What it is to be told in the next round, by name.
      measured: Numbers for the round's record, by name.
    """

    vector: np.ndarray
    weights: np.ndarray | None = None
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """A robust rule: a frozen dataclass of its settings. Rows come in an order that says nothing."""

    def fewest(self, attackers: int) -> int | None:
        """How few rows are enough where `attackers` of them may be anything; None where it holds against none so many.

        >>> from hanse.aggregators.robust.columns import Median
        >>> Median().fewest(2)
        5
        """
        ...

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """The rows as one; there are `fewest(given.attackers)` of them or more, finite and no longer than 1e100."""
        ...


def needs_root(rule: object) -> bool:
    """Whether a rule compares rows with an update of the server's own (`needs_root = True`)."""
    return bool(getattr(rule, "needs_root", False))


def remembers_clients(rule: object) -> bool:
    """Whether a rule carries something of each client, so that rows must be clients' (`remembers_clients = True`)."""
    return bool(getattr(rule, "remembers_clients", False))


def remembers(rule: object) -> bool:
    """Whether a rule carries anything from round to round (`remembers = True`)."""
    return bool(getattr(rule, "remembers", False))
