import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.clipping import CentredClipping, NormBound
from hanse.core.errors import SettingError
from hanse.core.judged_round import JudgedRound
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, check_stays_near, combine, honest_and_outliers, robust_of


def test_centred_clipping_by_hand() -> None:
    # from 0 with radius 2: (3, 4) becomes (1.2, 1.6), (1, 0) stays, (0, -8) becomes (0, -2); their mean
    values = [[3.0, 4], [1, 0], [0, -8]]
    found = combine(CentredClipping(radius=2.0), values, attackers=1)
    np.testing.assert_allclose(found.vector, [2.2 / 3, -0.4 / 3], rtol=1e-6)
    np.testing.assert_array_equal(found.memory["centre"], found.vector)
    np.testing.assert_allclose(found.weights, [0.4 / 3, 1 / 3, 0.25 / 3], rtol=1e-6)


def test_it_starts_from_what_it_remembers() -> None:
    # from (1, 1): (3, 3) clipped to 1 is (1, 1) / √2 away, (1, 1) stays
    memory = {"centre": np.array([1.0, 1.0])}
    found = combine(CentredClipping(radius=1.0), [[3.0, 3], [1, 1]], memory=memory)
    np.testing.assert_allclose(found.vector, [1 + 0.5 / 2**0.5] * 2, rtol=1e-6)


@pytest.mark.parametrize("start", [None, 2.0])
def test_iterations_agree_with_vectors(start: float | None) -> None:
    x = np.random.default_rng(4).standard_normal((7, 50)) + 2
    v = np.zeros(50) if start is None else np.full(50, start)
    memory = {} if start is None else {"centre": v}
    found = combine(CentredClipping(radius=3.0, iterations=4), x, attackers=2, memory=memory).vector
    for _ in range(4):
        v = v + np.mean([(row - v) * min(1, 3.0 / np.linalg.norm(row - v)) for row in x], axis=0)
    np.testing.assert_allclose(found, v, atol=1e-5)


def test_two_rounds_through_the_aggregator() -> None:
    values = [[4.0, 0], [4, 0], [4, 0]]
    rule, memory = CentredClipping(radius=1.0), {}
    for wanted in (1.0, 2.0, 3.0, 4.0, 4.0):
        given = JudgedRound(round=1, rng=np.random.default_rng(0), memory=memory)
        found = robust_of(rule, values, range(3), attackers=1, given=given)
        np.testing.assert_allclose(found.delta.numpy(), [wanted, 0], atol=1e-6)
        memory = dict(found.memory)
    assert Robust(rule=rule, attackers=1).remembers


def test_norm_bound_by_hand() -> None:
    values = [[3.0, 4], [1, 0], [0, -8]]
    np.testing.assert_allclose(combine(NormBound(bound=2.0), values).vector, [2.2 / 3, -0.4 / 3], rtol=1e-6)
    found = combine(NormBound(), values, attackers=1)  # the median norm is 5
    np.testing.assert_allclose(found.vector, [4 / 3, -1 / 3], rtol=1e-6)
    assert found.measured["norm_bound"] == pytest.approx(5)


def test_a_bound_that_nothing_reaches_is_the_mean() -> None:
    x = np.random.default_rng(4).standard_normal((7, 50))
    for rule in (NormBound(bound=1e3), CentredClipping(radius=1e3)):
        np.testing.assert_allclose(combine(rule, x).vector, x.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("rule", [NormBound(), NormBound(bound=9.0), CentredClipping(radius=9.0, iterations=2)])
@pytest.mark.parametrize("values", [np.zeros((5, 3)), np.ones((5, 3)), np.ones((1, 3))])
def test_rows_that_are_all_alike(rule: NormBound | CentredClipping, values: np.ndarray) -> None:
    np.testing.assert_allclose(combine(rule, values).vector, values[0], rtol=1e-6)


@pytest.mark.parametrize("rule", [NormBound(), NormBound(bound=2.0), CentredClipping(radius=2.0, iterations=3)])
def test_conforms_in_any_order(rule: NormBound | CentredClipping) -> None:
    check_aggregator(Robust(rule=rule, attackers=4))
    check_order(rule, np.random.default_rng(2).standard_normal((9, 30)), attackers=4)


def test_holds_at_its_bound() -> None:
    check_stays_near(CentredClipping(radius=5.0), honest=19, attackers=2, memory={"centre": np.full(40, 2.0)})
    for size in (100.0, 1e30):
        good, values = honest_and_outliers(5, 4, size=size)
        longest = np.linalg.norm(good, axis=1).max()
        without = combine(NormBound(), [*good, *np.zeros((4, 40))]).vector
        assert np.linalg.norm(combine(NormBound(), values, attackers=4).vector - without) <= longest
    assert (NormBound().fewest(4), NormBound(bound=1.0).fewest(4), CentredClipping(radius=1.0).fewest(4)) == (9, 5, 9)


def test_a_median_norm_fails_with_half() -> None:
    _, values = honest_and_outliers(4, 5, size=1e6)
    assert np.linalg.norm(combine(NormBound(), values, attackers=4).vector) > 1e5


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_settings_are_checked(value: float) -> None:
    with pytest.raises(SettingError, match="radius: must be"):
        CentredClipping(radius=value)
    with pytest.raises(SettingError, match="bound: must be"):
        NormBound(bound=value)
    with pytest.raises(SettingError, match="iterations: must be"):
        CentredClipping(radius=1.0, iterations=0)
