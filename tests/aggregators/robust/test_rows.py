import numpy as np
import pytest

from hanse.aggregators.robust.rows import Rows
from tests.aggregators.robust.rows_of import rows_of

RNG = np.random.default_rng(7)
VALUES = RNG.standard_normal((7, 20_001)).astype(np.float32) + 3.0
MIX = RNG.dirichlet(np.ones(7), size=4)
CENTRE = RNG.standard_normal(20_001)


def dense(mix: np.ndarray | None) -> np.ndarray:
    wide = VALUES.astype(np.float64)
    return wide if mix is None else mix @ wide


@pytest.mark.parametrize("mix", [None, MIX])
def test_agrees_with_dense_arithmetic(mix: np.ndarray | None) -> None:
    rows, x = rows_of(VALUES) if mix is None else rows_of(VALUES).mixed(mix), dense(mix)
    weights = np.linspace(0, 1, len(x))
    np.testing.assert_allclose(rows.gram, x @ x.T, rtol=1e-5)
    np.testing.assert_allclose(rows.gram_about(CENTRE), (x - CENTRE) @ (x - CENTRE).T, rtol=1e-5)
    squared = ((x[:, None] - x[None, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(rows.squared_distances, squared, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rows.norms, np.linalg.norm(x, axis=1), rtol=1e-6)
    np.testing.assert_allclose(rows.combined(weights), weights @ x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(rows.products_with(CENTRE), x @ CENTRE, rtol=1e-9)
    joined = np.concatenate([block for _, block in rows.blocks(4_000)], axis=1)
    np.testing.assert_allclose(joined, x, rtol=1e-5)


def test_mixtures_of_mixtures() -> None:
    again = RNG.dirichlet(np.ones(4), size=3)
    rows = rows_of(VALUES).mixed(MIX).mixed(again)
    np.testing.assert_allclose(rows.combined(np.ones(3)), (again @ dense(MIX)).sum(axis=0), rtol=1e-9)
    assert len(rows) == 3


def test_distances_keep_their_digits_beside_what_all_share_and_beside_giants() -> None:
    near = RNG.standard_normal((6, 500))
    values = np.concatenate([near + 300.0, np.full((2, 500), -1e30)]).astype(np.float32)
    wide = values[:6].astype(np.float64)
    squared = ((wide[:, None] - wide[None, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(rows_of(values).squared_distances[:6, :6], squared, rtol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 1e37), (np.float32, 1e-37), (np.float16, 3e4), (np.float64, 1e200)]
)
def test_nothing_overflows(dtype: type, size: float) -> None:
    values = np.array([[1, 0, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0]]) * size
    rows = rows_of(np.asarray(values, dtype=dtype) / 4, dtype)
    np.testing.assert_allclose(rows.norms, np.array([2**0.5, 2, 0]) * size / 4, rtol=1e-3)
    for found in (rows.gram, rows.centred_gram, rows.squared_distances, rows.gram_about(np.zeros(4))):
        assert np.isfinite(found).all()
    assert rows.squared_distances[0, 1] > 0
    if size < 1e100:  # else at the largest number that is told
        np.testing.assert_allclose(rows.squared_distances[0, 1], 6 * (size / 4) ** 2, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "least"), [(np.float16, 6e-8), (np.float32, 1e-45), (np.float64, 5e-324)])
def test_the_least_numbers_are_scaled_to_no_infinity(dtype: type, least: float) -> None:
    rows = rows_of([[least, 0.0, 0.0], [1.0, 2.0, 2.0]], dtype)
    for found in (rows.gram, rows.squared_distances):
        assert np.isfinite(found).all()
    np.testing.assert_allclose(rows.squared_distances[0, 1], 9, rtol=1e-5)
    alone = rows_of([[least, 0.0, 0.0]] * 3, dtype)
    np.testing.assert_allclose(alone.gram, np.full((3, 3), float(dtype(least)) ** 2), rtol=1e-5)


def test_mixtures_of_float16_lose_no_digits() -> None:
    values = (RNG.standard_normal((100, 50)) + 1).astype(np.float16)
    found = np.empty((1, 50), dtype=np.float32)
    rows_of(values, np.float16).mixed(np.full((1, 100), 0.01)).block(slice(0, 50), out=found)
    np.testing.assert_allclose(found[0], values.mean(axis=0, dtype=np.float64), atol=1e-6)


def test_norms_of_stretches_of_unlike_size() -> None:
    row = np.ones(30_000, dtype=np.float32)
    row[:8192] = 3e20
    row[8192:16384] = 1e-25
    np.testing.assert_allclose(rows_of([row]).norms, [3e20 * 8192**0.5], rtol=1e-6)


def test_vectors_are_not_written_to() -> None:
    vectors = [row.copy() for row in VALUES]
    for vector in vectors:
        vector.setflags(write=False)
    rows = Rows(vectors)
    _ = rows.gram, rows.squared_distances, rows.norms, rows.combined(np.ones(7)), rows.products_with(CENTRE)
    np.testing.assert_array_equal(np.stack(vectors), VALUES)
