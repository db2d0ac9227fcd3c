from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hanse.attacks.attack import Seen
from hanse.attacks.fang import FangAdaptive
from hanse.attacks.ipm import IPM
from hanse.attacks.multiples import SignFlip
from hanse.core.errors import TooFewClientsError

SeenBy = Callable[..., Seen]


def median(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.median(rows, axis=0))


def krum(rows: Sequence[np.ndarray], attackers: int = 3) -> np.ndarray:
    stacked = np.stack(rows)
    squared = ((stacked[:, None] - stacked[None, :]) ** 2).sum(axis=-1)
    scores = np.sort(squared, axis=1)[:, 1 : len(rows) - attackers - 1].sum(axis=1)
    return stacked[int(np.argmin(scores))]


def mean(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean(rows, axis=0))


def honest_rows(seed: int, count: int = 9, size: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=size) * 0.3 + rng.normal(size=(count, size))


def damage(honest: np.ndarray, sent: Sequence[np.ndarray], rule: Callable[..., np.ndarray]) -> float:
    before = honest.mean(axis=0)
    return float(np.sign(before) @ (before - rule([*honest, *sent])))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", [median, krum, mean])
def test_does_more_than_simpler_attacks(seen_by: SeenBy, rule: Callable[..., np.ndarray], seed: int) -> None:
    honest = honest_rows(seed)
    own = honest_rows(seed + 100, count=3)
    seen = seen_by(own, honest, rule=rule)
    done = damage(honest, FangAdaptive().craft(seen), rule)
    assert done > 0
    assert done > damage(honest, SignFlip().craft(seen), rule)
    assert done > damage(honest, IPM().craft(seen), rule)


def test_krum_chooses_the_attackers(seen_by: SeenBy) -> None:
    honest = honest_rows(0)
    sent = FangAdaptive().craft(seen_by(np.zeros((3, 20)), honest, rule=krum))
    chosen = krum([*honest, *sent])
    assert any(np.array_equal(chosen, row) for row in sent)
    length = np.linalg.norm(sent[0])
    assert 0 < np.linalg.norm(sent[1] - sent[0]) < 0.2 * length  # supporters are near, not the same


def test_supporters_may_be_copies(seen_by: SeenBy) -> None:
    sent = FangAdaptive(apart=0.0).craft(seen_by(np.zeros((3, 20)), honest_rows(0), rule=krum))
    np.testing.assert_array_equal(sent[1], sent[0])
    np.testing.assert_array_equal(sent[2], sent[0])


def test_goes_as_far_as_it_may_where_nothing_is_cut_off(seen_by: SeenBy) -> None:
    # honest 1 and 3: mean 2, the longest is 3, two are apart by 2; the furthest is −2 · 5
    sent = FangAdaptive(largest=2.0).craft(seen_by([[0.0]], [[1.0], [3.0]], rule=mean))
    np.testing.assert_allclose(sent, [[-10.0]])


@pytest.mark.parametrize("rule", [None, "too few"])
def test_without_a_rule_it_sends_numbers_beyond_the_honest_ones(seen_by: SeenBy, rule: str | None) -> None:
    def refuses(rows: Sequence[np.ndarray]) -> np.ndarray:
        raise TooFewClientsError(f"{len(rows)} are too few")

    # means 2, −2, 1, −1, 0: towards the other side of the least or the largest
    honest = [[1.0, -1.0, -1.0, 2.0, 1.0], [3.0, -3.0, 3.0, -4.0, -1.0]]
    for seed in range(5):
        seen = seen_by(np.zeros((2, 5)), honest, rule=refuses if rule else None, seed=seed)
        for sent in FangAdaptive().craft(seen):
            low, high = np.array([0.5, -1.0, -2.0, 2.0, 0.0]), np.array([1.0, -0.5, -1.0, 4.0, 0.0])
            assert (sent >= low).all()
            assert (sent <= high).all()


def test_a_rule_that_gives_nonsense_is_no_better_than_none(seen_by: SeenBy) -> None:
    honest = honest_rows(1)
    with_nonsense = seen_by(np.zeros((2, 20)), honest, rule=lambda rows: np.full(20, np.nan))
    np.testing.assert_array_equal(
        FangAdaptive().craft(with_nonsense), FangAdaptive().craft(seen_by(np.zeros((2, 20)), honest))
    )
