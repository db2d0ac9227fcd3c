"""`FoolsGold`: clients whose updates have been alike all along count less."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.flame import cosine_distances
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.aggregators.robust.sketch import sketched
from hanse.core.errors import SettingError

_KEY, _HISTORY = "key", "history."


@dataclass(frozen=True, kw_only=True)
class FoolsGold:
    """Weights by how little a client's history is like that of any other: against many that push the same way.

    With H_i the sum of client i's updates so far, and v_i = max_j cs_ij:

        cs_ij = cos(H_i, H_j)        cs_ij ← cs_ij v_i / v_j  where v_j > v_i  (pardoning)
        α_i = 1 − max_j cs_ij        α_i ← α_i / max_j α_j
        α_i ← κ (ln(α_i / (1 − α_i)) + 1/2)  cut to [0, 1]        Σ_i α_i x_i / Σ_i α_i

    It supposes that honest clients differ, as those with unlike examples do, and no number of attackers: one alone is
    like nobody and is not noticed, and nothing is said of how far a row may be. Clients that are all alike weigh
    nothing at all, and the result is zero. One client alone has nobody to be like, and weighs 1.

    Deviations: histories are kept as sketches of fixed size, so a cosine is off by about 1/√s (0.016 for 4,096); if
    there are no more elements than that, it is exact. Elements are not weighed by how much the model's output depends
    on them. The weighted mean is taken in place of the weighted sum, so that steps do not grow with the cohort.
    Similarities below 0 are taken for 0. A client that has sent zeros only is like nobody.

    Memory: ``history.<client>``, s numbers in float64 for each client that ever counted, and ``key``, from which the
    sketch's signs follow; it is drawn in the first round and told to nobody, for who knows it can hide from the sketch.

    Args:
      sketch: s ≥ 1, elements.
      confidence: κ > 0.

    References:
      Fung, Yoon, Beschastnikh 2020, "The limitations of federated learning in Sybil settings", RAID, algorithm 1.
    """

    remembers = True
    remembers_clients = True

    sketch: int = 4096
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if self.sketch < 1:
            raise SettingError("sketch", f"must be at least 1, got {self.sketch}")
        if not 0 < self.confidence < math.inf:
            raise SettingError("confidence", f"must be a number above 0, got {self.confidence}")

    def fewest(self, attackers: int) -> int:
        """f + 1: it supposes one honest row, and no share of them."""
        return attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        memory = dict(given.memory)
        if _KEY not in memory:
            memory[_KEY] = given.rng.integers(2**63, size=1, dtype=np.int64)
        new = sketched(rows, size=self.sketch, key=int(memory[_KEY][0]))
        histories = np.stack([_history(memory, client, own) for client, own in zip(given.clients, new, strict=True)])
        memory.update({_HISTORY + client: own for client, own in zip(given.clients, histories, strict=True)})
        trust = _trust(_similarities(histories), self.confidence)
        weights = trust / (trust.sum() or 1.0)
        return Combined(vector=rows.combined(weights), weights=weights, memory=memory)


def _history(memory: Mapping[str, np.ndarray], client: str, new: np.ndarray) -> np.ndarray:
    known = memory.get(_HISTORY + client)
    return new if known is None else known + new


def _similarities(histories: np.ndarray) -> np.ndarray:
    """`[n, n]` in [0, 1]: cosines, none below 0; zeros on the diagonal and for histories of zeros."""
    scaled = histories / np.maximum(np.abs(histories).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    found: np.ndarray = np.clip(1 - cosine_distances(scaled @ scaled.T), 0.0, 1.0)
    silent = ~scaled.any(axis=1)
    found[silent, :] = found[:, silent] = 0.0
    np.fill_diagonal(found, 0.0)
    return found


def _trust(similarities: np.ndarray, confidence: float) -> np.ndarray:
    """`[n]` in [0, 1]: pardoning, rescaling and the logit."""
    most = similarities.max(axis=1)
    own, other = most[:, None], most[None, :]
    pardoned = np.where(other > own, similarities * own / np.where(other > 0, other, 1.0), similarities)
    trust = 1 - pardoned.max(axis=1)
    highest = trust.max()
    if highest <= 0:
        return np.zeros(len(trust))
    trust = trust / highest
    found = np.ones(len(trust))  # the limit at 1
    inner = (trust > 0) & (trust < 1)
    found[trust <= 0] = 0.0
    found[inner] = confidence * (np.log(trust[inner] / (1 - trust[inner])) + 0.5)
    return np.clip(found, 0.0, 1.0)
