import numpy as np
import pytest

from hanse.aggregators.robust.flame import cosine_distances
from hanse.aggregators.robust.majority_cluster import majority_cluster

hdbscan = pytest.importorskip("sklearn.cluster").HDBSCAN


def by_hdbscan(distances: np.ndarray) -> np.ndarray:
    count = len(distances)
    found = hdbscan(
        min_cluster_size=count // 2 + 1,
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    ).fit(distances)
    return np.flatnonzero(found.labels_ == 0)


def between(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None, :], axis=2)


@pytest.mark.parametrize("seed", range(40))
def test_finds_what_hdbscan_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        count = int(rng.integers(3, 60))
        points = rng.standard_normal((count, int(rng.integers(1, 6))))
        far = rng.random(count) < rng.uniform(0, 0.6)
        points[far] += rng.normal(scale=4, size=points.shape[1])
        distances = between(points) if seed % 2 else cosine_distances(points @ points.T)
        np.testing.assert_array_equal(majority_cluster(distances), by_hdbscan(distances))


@pytest.mark.parametrize("seed", range(20))
def test_finds_what_hdbscan_finds_among_equal_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        distances = between(rng.integers(0, 6, size=(int(rng.integers(3, 30)), 2)).astype(float))
        np.testing.assert_array_equal(majority_cluster(distances), by_hdbscan(distances))


def test_by_hand() -> None:
    # links 1, 1.5, 2, 4: three of five points are together from 1.5 on
    x = np.array([0.0, 1.0, 2.5, 4.5, 8.5])
    np.testing.assert_array_equal(majority_cluster(abs(x[:, None] - x[None, :])), [0, 1, 2])


def test_a_few_points() -> None:
    np.testing.assert_array_equal(majority_cluster(np.zeros((1, 1))), [0])
    np.testing.assert_array_equal(majority_cluster(np.array([[0.0, 3], [3, 0]])), [0, 1])
    np.testing.assert_array_equal(majority_cluster(np.zeros((4, 4))), [0, 1, 2, 3])


def test_the_order_makes_no_difference() -> None:
    rng = np.random.default_rng(1)
    distances = between(rng.integers(0, 4, size=(15, 2)).astype(float))
    order = rng.permutation(15)
    found = majority_cluster(distances[np.ix_(order, order)])
    np.testing.assert_array_equal(np.sort(order[found]), majority_cluster(distances))
