from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hanse.attacks.attack import Seen
from hanse.attacks.min_max import MinMax, Perturbation

SeenBy = Callable[..., Seen]


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None, :], axis=-1)


def test_on_a_line(seen_by: SeenBy) -> None:
    # mean 2, two apart at most 4 (0 and 4): down to 0 from 4 is as far as it may go
    honest = [[0.0], [2.0], [4.0]]
    for perturbation in ("std", "unit", "sign"):
        np.testing.assert_allclose(MinMax(perturbation=perturbation).craft(seen_by([[9.0]], honest)), [[0.0]])


def test_in_a_plane(seen_by: SeenBy) -> None:
    # mean (1, 0), p = (−1, 0), D = 2: from (1 − γ, 0) to (1, ±1) it is √(γ² + 1) ≤ 2
    honest = [[1.0, 1.0], [1.0, -1.0]]
    (sent,) = MinMax(perturbation="unit").craft(seen_by([[0.0, 0.0]], honest))
    np.testing.assert_allclose(sent, [1 - np.sqrt(3), 0.0], atol=1e-12)


@pytest.mark.parametrize("perturbation", ["std", "unit", "sign"])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_and_is_reached(seen_by: SeenBy, perturbation: Perturbation, seed: int) -> None:
    honest = np.random.default_rng(seed).normal(0.3, 1.0, size=(9, 30))
    first, second = MinMax(perturbation=perturbation).craft(seen_by(np.zeros((2, 30)), honest))
    np.testing.assert_array_equal(first, second)
    furthest = np.linalg.norm(honest - first, axis=1).max()
    assert furthest == pytest.approx(distances(honest).max(), rel=1e-9)


def test_the_bound_holds_in_single_precision(seen_by: SeenBy) -> None:
    honest = np.random.default_rng(0).normal(100.0, 1.0, size=(9, 30)).astype(np.float32)
    (sent,) = MinMax().craft(seen_by(np.zeros((1, 30)), honest, dtype=np.float32))
    assert np.linalg.norm(honest - sent, axis=1).max() <= distances(honest).max() * (1 + 1e-4)


def test_of_members_own_where_it_knows_no_more(seen_by: SeenBy) -> None:
    np.testing.assert_allclose(MinMax(omniscient=False).craft(seen_by([[0.0], [2.0], [4.0]])), [[0.0]] * 3)


def test_nothing_to_hide_behind(seen_by: SeenBy) -> None:
    np.testing.assert_allclose(MinMax().craft(seen_by([[0.0, 0.0]], [[1.0, 2.0]] * 3)), [[1.0, 2.0]])
    np.testing.assert_allclose(
        MinMax(perturbation="unit").craft(seen_by([[0.0]], [[1.0], [-1.0]])), [[0.0]]
    )  # the mean has no direction
