import numpy as np

from hanse.aggregators.robust.sketch import sketched
from tests.aggregators.robust.rows_of import rows_of


def test_rows_that_fit_are_as_they_are() -> None:
    values = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    np.testing.assert_array_equal(sketched(rows_of(values), size=50, key=1), values)


def test_each_element_goes_to_one_place_with_a_sign() -> None:
    found = sketched(rows_of(np.eye(23)), size=5, key=3)
    np.testing.assert_array_equal(np.abs(found).sum(axis=1), np.ones(23))
    assert np.abs(found[:5]).sum(axis=0).max() == 1  # of one stretch no two meet
    assert (found.sum(axis=1) == -1).any()
    assert (found.sum(axis=1) == 1).any()


def test_it_is_linear_and_the_same_however_many_rows_there_are() -> None:
    values = np.random.default_rng(0).integers(-9, 9, size=(3, 5_000)).astype(np.float32)
    found = sketched(rows_of(values), size=64, key=5)
    np.testing.assert_array_equal(sketched(rows_of([values[0] + values[1]]), size=64, key=5)[0], found[0] + found[1])
    np.testing.assert_array_equal(sketched(rows_of(np.tile(values, (400, 1))), size=64, key=5)[:3], found)
    assert not np.array_equal(sketched(rows_of(values), size=64, key=6), found)


def test_inner_products_are_right_on_average() -> None:
    # 400 keys; the mean's deviation is √(2 / 32 / 400) = 0.0125 at most, and five of them are allowed
    rng = np.random.default_rng(2)
    x = rng.standard_normal(200)
    y = x + rng.standard_normal(200)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    found = [np.prod(sketched(rows_of([x, y], np.float64), size=32, key=key), axis=0).sum() for key in range(400)]
    assert abs(np.mean(found) - x @ y) < 0.0625
    assert np.std(found) < 1.2 * np.sqrt((1 + (x @ y) ** 2) / 32)
