"""Rows and rounds for tests of rules."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, Rule, RuleRound
from hanse.core.aggregate import Aggregate
from hanse.core.judged_round import JudgedRound
from hanse.testing.fakes import make_update


def rows_of(values: Any, dtype: Any = np.float32) -> Rows:
    return Rows([np.asarray(row, dtype=dtype) for row in values])


def combine(rule: Rule, values: Any, *, attackers: int = 0, dtype: Any = np.float32, **known: Any) -> Combined:
    rows = rows_of(values, dtype)
    clients = tuple(f"site-{i:03}" for i in range(len(rows)))
    known = {"rng": np.random.default_rng(1), "clients": clients, **known}
    return rule.combine(rows, RuleRound(attackers=attackers, **known))


def robust_of(
    rule: Rule, values: Any, order: Sequence[int], *, attackers: int, given: JudgedRound | None = None
) -> Aggregate:
    """Through the aggregator, in an order."""
    aggregator = Robust(rule=rule, attackers=attackers)
    if given is not None:
        aggregator = aggregator.judging(given)
    updates = [make_update(row, client=f"site-{i:03}") for i, row in enumerate(np.asarray(values))]
    total = aggregator.zero(updates[0].delta.spec)
    for i in order:
        total = aggregator.accumulate(total, updates[i], 1.0)
    return aggregator.finish(total)


def check_order(rule: Rule, values: Any, *, attackers: int, root: Any = None) -> None:
    """The same bits in any order."""
    orders = [np.arange(len(values)), *(np.random.default_rng(s).permutation(len(values)) for s in range(3))]
    found = [robust_of(rule, values, order, attackers=attackers, given=_given(root)).delta.numpy() for order in orders]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def _given(root: Any) -> JudgedRound:
    return JudgedRound(round=1, rng=np.random.default_rng(5), root=None if root is None else make_update(root))


def honest_and_outliers(
    honest: int, attackers: int, *, size: float, dimension: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Honest rows around a common point, and all rows, of which the last ones are `size` away on one side."""
    rng = np.random.default_rng(seed)
    good = (2.0 + 0.5 * rng.standard_normal((honest, dimension))).astype(np.float32)
    bad = np.full((attackers, dimension), -size / np.sqrt(dimension), dtype=np.float32)
    return good, np.concatenate([good, bad])


def check_stays_near(rule: Rule, honest: int, attackers: int, **known: Any) -> None:
    """Outliers, far and very far, leave the result within the honest rows' diameter of their mean."""
    for size in (30.0, 1e6, 1e15, 1e30):
        good, values = honest_and_outliers(honest, attackers, size=size)
        diameter = np.linalg.norm(good[:, None] - good[None, :], axis=2).max()
        found = combine(rule, values, attackers=attackers, **known)
        assert np.linalg.norm(found.vector - good.mean(axis=0, dtype=np.float64)) <= diameter, size
