import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.krum import Krum, MultiKrum, best, krum_scores
from hanse.core.errors import SettingError
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, check_stays_near, combine, honest_and_outliers

LINE = [[0.0], [1.0], [3.0], [3.5], [100.0]]


def test_scores_by_hand() -> None:
    # n = 5, f = 1: two neighbours. 0: 1 + 9; 1: 1 + 4; 3: 0.25 + 4; 3.5: 0.25 + 6.25; 100: 96.5² + 97²
    points = np.array(LINE)
    squared = (points - points.T) ** 2
    np.testing.assert_allclose(krum_scores(squared, 1), [10, 5, 4.25, 6.5, 96.5**2 + 97**2])


def test_krum_takes_the_best_row() -> None:
    found = combine(Krum(), LINE, attackers=1)
    np.testing.assert_allclose(found.vector, [3.0])
    np.testing.assert_allclose(found.weights, [0, 0, 1, 0, 0])


def test_multi_krum_takes_the_mean_of_the_best() -> None:
    np.testing.assert_allclose(combine(MultiKrum(), LINE, attackers=1).vector, [7.5 / 4])
    np.testing.assert_allclose(combine(MultiKrum(selected=2), LINE, attackers=1).vector, [2.0])


def test_multi_krum_of_one_is_krum() -> None:
    values = np.random.default_rng(1).standard_normal((9, 50))
    one = combine(MultiKrum(selected=1), values, attackers=2)
    np.testing.assert_array_equal(one.vector, combine(Krum(), values, attackers=2).vector)


def test_of_equal_scores_the_first_client_counts() -> None:
    np.testing.assert_array_equal(best(np.array([2.0, 1.0, 1.0, 0.5]), 2), [1, 3])
    corners = [[1.0, 0], [0, 1], [-1, 0], [0, -1]]
    np.testing.assert_allclose(combine(Krum(), corners).vector, [1, 0])


@pytest.mark.parametrize("values", [np.zeros((5, 3)), np.ones((5, 3)), np.ones((1, 3))])
def test_rows_that_are_all_alike(values: np.ndarray) -> None:
    for rule in (Krum(), MultiKrum()):
        np.testing.assert_allclose(combine(rule, values).vector, values[0])


@pytest.mark.parametrize("rule", [Krum(), MultiKrum(), MultiKrum(selected=3)])
def test_conforms_in_any_order(rule: Krum | MultiKrum) -> None:
    check_aggregator(Robust(rule=rule, attackers=2))
    check_order(rule, np.random.default_rng(2).standard_normal((9, 30)), attackers=2)


@pytest.mark.parametrize("rule", [Krum(), MultiKrum()])
def test_holds_at_its_bound(rule: Krum | MultiKrum) -> None:
    check_stays_near(rule, honest=6, attackers=3)


def test_fails_beyond_its_bound() -> None:
    # with n − f − 2 = 4 neighbours, five rows that are one point are their own
    _, values = honest_and_outliers(4, 5, size=1e6)
    assert np.linalg.norm(combine(Krum(), values, attackers=3).vector) > 1e5


def test_fewest() -> None:
    assert Krum().fewest(0) == 3
    assert Krum().fewest(2) == 7
    assert MultiKrum().fewest(2) == 7
    assert MultiKrum(selected=8).fewest(2) == 10


def test_selected_is_checked() -> None:
    with pytest.raises(SettingError, match="selected: must be at least 1"):
        MultiKrum(selected=0)
