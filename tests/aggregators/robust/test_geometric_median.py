import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.geometric_median import GeometricMedian
from hanse.core.errors import SettingError
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, check_stays_near, combine, honest_and_outliers


def weiszfeld(x: np.ndarray, *, iterations: int, smoothing: float, start: np.ndarray) -> np.ndarray:
    """The paper's iteration, on vectors."""
    z = start
    for _ in range(iterations):
        beta = 1 / np.maximum(smoothing, np.linalg.norm(x - z, axis=1))
        z = beta @ x / beta.sum()
    return z


def test_the_fermat_point_of_a_triangle() -> None:
    # right angle at 0, legs of 1: the point (t, t) from which all sides are seen under 120°, t = 1/2 − 1/(2√3)
    t = 0.5 - 0.5 / 3**0.5
    found = combine(GeometricMedian(iterations=200), [[0.0, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(found.vector, [t, t], atol=1e-4)


def test_iterations_are_those_of_the_paper() -> None:
    x = np.random.default_rng(5).standard_normal((9, 60)) + np.r_[np.zeros(59), 5]
    distances = np.linalg.norm(x[:, None] - x[None, :], axis=2)
    radii = np.sort(distances, axis=1)[:, 4]
    start = (1 / radii) @ x / (1 / radii).sum()
    for iterations in (1, 4):
        rule = GeometricMedian(iterations=iterations, smoothing=0.5, relative=False)
        wanted = weiszfeld(x, iterations=iterations, smoothing=0.5, start=start)
        np.testing.assert_allclose(combine(rule, x).vector, wanted, atol=1e-4)


def test_smoothing_relative_to_the_median_radius() -> None:
    x = np.array([[0.0], [1], [3], [7], [20]])
    # radii, of three points each: 3, 2, 3, 6, 17; their median is 3
    relative = combine(GeometricMedian(iterations=3, smoothing=0.5), x)
    absolute = combine(GeometricMedian(iterations=3, smoothing=1.5, relative=False), x)
    np.testing.assert_allclose(relative.vector, absolute.vector, rtol=1e-6)
    assert relative.weights is not None
    assert relative.weights.sum() == pytest.approx(1)


def test_most_rows_being_one_point_that_is_the_median() -> None:
    found = combine(GeometricMedian(), [[1.0, 2]] * 4 + [[5, 5], [-9, 7], [0, 0]], attackers=3)
    np.testing.assert_allclose(found.vector, [1, 2], atol=1e-3)


@pytest.mark.parametrize("values", [np.zeros((5, 3)), np.ones((5, 3)), np.ones((1, 3)), np.ones((2, 3))])
@pytest.mark.parametrize("relative", [True, False])
def test_rows_that_are_all_alike(values: np.ndarray, relative: bool) -> None:
    np.testing.assert_allclose(combine(GeometricMedian(relative=relative), values).vector, values[0])


def test_conforms_in_any_order() -> None:
    check_aggregator(Robust(rule=GeometricMedian(), attackers=4))
    check_order(GeometricMedian(), np.random.default_rng(2).standard_normal((9, 30)), attackers=4)


def test_holds_at_its_bound_and_not_with_half() -> None:
    check_stays_near(GeometricMedian(), honest=5, attackers=4)
    check_stays_near(GeometricMedian(iterations=1), honest=5, attackers=4)
    _, values = honest_and_outliers(4, 5, size=1e6)
    assert np.linalg.norm(combine(GeometricMedian(), values, attackers=4).vector) > 1e5
    assert GeometricMedian().fewest(4) == 9


@pytest.mark.parametrize("settings", [{"iterations": 0}, {"smoothing": 0.0}, {"smoothing": float("nan")}])
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        GeometricMedian(**settings)  # type: ignore[arg-type]
