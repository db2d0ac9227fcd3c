import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.bulyan import Bulyan, mean_near_median
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, check_stays_near, combine, honest_and_outliers


def test_by_hand() -> None:
    # n = 7, f = 1, so five rows are selected, and 4, 3, 2, 1, 1 neighbours count:
    #   0 (1+1+4+4 = 10); 1 (1+4+9 = 14, as -1, which comes later); -1 (1+9 = 10); 2 (16, as -2, which comes later);
    #   50 (10² to 60; -2 has 52² to 50)
    # of 0, 1, -1, 2, 50 the median is 1, and the three nearest are 0, 1, 2
    values = [[0.0], [1], [-1], [2], [-2], [50], [60]]
    np.testing.assert_allclose(combine(Bulyan(), values, attackers=1).vector, [1.0])


def test_without_attackers_it_is_the_mean() -> None:
    values = np.random.default_rng(0).standard_normal((5, 30))
    np.testing.assert_allclose(combine(Bulyan(), values).vector, values.mean(axis=0), atol=1e-6)


def test_an_element_that_krum_does_not_see() -> None:
    # the attacker is an honest row but for one element, by less than the rows differ altogether
    rng = np.random.default_rng(3)
    honest = rng.standard_normal((10, 400))
    hidden = honest.mean(axis=0)
    hidden[0] = 8.0
    found = combine(Bulyan(), [*honest, hidden], attackers=1).vector
    assert abs(found[0]) < np.abs(honest[:, 0]).max() < 8


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9), st.data())
def test_values_near_the_median_by_definition(column: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(column)))
    middle = float(np.median(column))
    nearest = sorted(column, key=lambda x: (abs(x - middle), x))[:count]
    found = mean_near_median(np.array(column, dtype=np.float32)[:, None], count)
    assert abs(found[0] - np.mean(nearest)) <= 1e-9


def test_of_values_equally_near_the_smaller_ones_count() -> None:
    np.testing.assert_allclose(mean_near_median(np.array([[3.0], [0.0], [1.0], [2.0]]), 3), [1.0])


def test_a_giant_does_not_take_the_digits() -> None:
    block = np.array([[1.0], [2.0], [4.0], [3e38], [-3e38]], dtype=np.float32)
    np.testing.assert_allclose(mean_near_median(block, 3), [7 / 3])


@pytest.mark.parametrize("values", [np.zeros((7, 3)), np.ones((7, 3)), np.ones((1, 3))])
def test_rows_that_are_all_alike(values: np.ndarray) -> None:
    np.testing.assert_allclose(combine(Bulyan(), values, attackers=len(values) // 7).vector, values[0])


def test_conforms_in_any_order() -> None:
    check_aggregator(Robust(rule=Bulyan(), attackers=1))
    check_order(Bulyan(), np.random.default_rng(2).standard_normal((11, 30)), attackers=2)


def test_holds_at_its_bound_and_not_with_half() -> None:
    check_stays_near(Bulyan(), honest=9, attackers=2)
    _, values = honest_and_outliers(3, 8, size=1e6)
    assert np.linalg.norm(combine(Bulyan(), values, attackers=2).vector) > 1e5
    assert Bulyan().fewest(2) == 11
