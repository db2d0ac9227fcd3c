import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.flame import Flame, cosine_distances
from hanse.core.errors import SettingError
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, check_stays_near, combine, honest_and_outliers

# three rows along (1, 0), one of them long, and two others: norms 1, 2, 10, 5, 1, of which the median is 2
VALUES = [[1.0, 0], [2, 0], [10, 0], [-3, 4], [0, -1]]


def test_by_hand() -> None:
    found = combine(Flame(noise=0.0), VALUES, attackers=2)
    np.testing.assert_allclose(found.vector, [(1 + 2 + 2) / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(found.weights, [1 / 3, 1 / 3, 2 / 10 / 3, 0, 0], rtol=1e-6)
    assert found.measured == {"admitted": 3.0}


def test_noise_is_of_the_median_norm() -> None:
    # 40,000 draws: their deviation is within 2.5 % of 0.1 · 200 but for one seed in a million
    values = np.ones((3, 40_000))
    found = combine(Flame(noise=0.1), values).vector
    assert np.std(found) == pytest.approx(0.1 * 200, rel=0.025)
    assert np.mean(found) == pytest.approx(1, abs=0.5)
    np.testing.assert_array_equal(combine(Flame(noise=0.1), values).vector, found)


def test_cosine_distances_of_rows_of_zeros() -> None:
    x = np.array([[0.0, 0], [0, 0], [3, 0], [0, 2], [-1, 0]])
    wanted = [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 1, 2], [1, 1, 1, 0, 1], [1, 1, 2, 1, 0]]
    np.testing.assert_allclose(cosine_distances(x @ x.T), wanted)


@pytest.mark.parametrize("values", [np.zeros((5, 3)), np.ones((5, 3)), np.ones((1, 3)), np.zeros((1, 3))])
def test_rows_that_are_all_alike(values: np.ndarray) -> None:
    np.testing.assert_allclose(combine(Flame(noise=0.0), values).vector, values[0], rtol=1e-6)


def test_zeros_from_most_give_zero() -> None:
    np.testing.assert_array_equal(combine(Flame(), [[0.0, 0]] * 3 + [[1, 2], [9, 9]], attackers=2).vector, [0, 0])


def test_conforms_in_any_order() -> None:
    check_aggregator(Robust(rule=Flame(), attackers=4))
    check_order(Flame(), np.random.default_rng(2).standard_normal((9, 30)), attackers=4)


def test_holds_at_its_bound_and_not_with_half() -> None:
    check_stays_near(Flame(), honest=5, attackers=4)
    good, values = honest_and_outliers(4, 5, size=100.0)
    assert combine(Flame(), values, attackers=4).vector @ good.mean(axis=0) < 0
    assert Flame().fewest(4) == 9


@pytest.mark.parametrize("noise", [-0.1, float("inf"), float("nan")])
def test_noise_is_checked(noise: float) -> None:
    with pytest.raises(SettingError, match="noise: must be a number of at least 0"):
        Flame(noise=noise)
