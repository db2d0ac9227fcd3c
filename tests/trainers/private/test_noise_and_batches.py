"""Batches by Poisson sampling, and normal numbers in bulk: fixed keys, and what chance alone would make fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from hanse.trainers.private.batches import poisson_batches
from hanse.trainers.private.noise import NormalNoise


def _drawn(key: int, count: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
    out = torch.empty(count, dtype=dtype)
    NormalNoise(key).fill(out)
    return out.numpy().astype(np.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_normal(dtype: torch.dtype) -> None:
    """Kolmogorov-Smirnov, and four moments, on 300,001 numbers: by chance a key fails with probability 1e-4."""
    found = _drawn(5, 300_001, dtype)
    assert stats.kstest(found, "norm").pvalue > 2e-5
    assert abs(found.mean()) < 4.5 / math.sqrt(len(found))
    assert abs(found.var() - 1) < 4.5 * math.sqrt(2 / len(found))
    assert abs((found**3).mean()) < 4.5 * math.sqrt(15 / len(found))
    assert abs((found**4).mean() - 3) < 4.5 * math.sqrt(96 / len(found))


def test_neighbours_do_not_go_together() -> None:
    """Of 200,000 numbers, at the distances that a pair, a block or a vector might show; fails by chance at 1e-4."""
    found = _drawn(6, 200_000)
    for distance in (1, 2, 65536, 131072, 150_000):
        product = found[:-distance] * found[distance:]
        assert abs(product.mean()) < 4.3 / math.sqrt(len(product))


def test_tails_are_there() -> None:
    """P(|z| > 4) = 6.33e-5: of four million numbers 253 are beyond, ± 75 at a chance of 3e-6."""
    beyond = int((np.abs(_drawn(7, 4_000_000)) > 4).sum())
    assert abs(beyond - 253.4) < 75


def test_a_key_s_numbers_are_its_own() -> None:
    assert np.array_equal(_drawn(8, 1000), _drawn(8, 1000))
    assert not np.array_equal(_drawn(8, 1000), _drawn(9, 1000))
    assert not np.array_equal(_drawn(8, 1000), _drawn(8 + (1 << 100), 1000))  # all 128 bits count
    noise, first, second = NormalNoise(8), torch.empty(1000), torch.empty(1000)
    noise.fill(first)
    noise.fill(second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 131071, 131072, 131073])
def test_vectors_of_any_length_are_filled(count: int) -> None:
    out = torch.full((count,), math.nan)
    NormalNoise(1).fill(out)
    assert bool(torch.isfinite(out).all())


def test_each_example_is_in_a_batch_at_the_rate() -> None:
    """Chi-squared over the examples' counts, and the sizes' mean and variance; fails by chance at 1e-4."""
    count, batch, steps = 200, 30, 4000
    counts, sizes = np.zeros(count), []
    for rows in poisson_batches(3, count, batch, steps=steps):
        assert np.array_equal(rows, np.unique(rows))
        counts[rows] += 1
        sizes.append(len(rows))
    rate = batch / count
    spread = steps * rate * (1 - rate)
    statistic = float(((counts - steps * rate) ** 2 / spread).sum())
    assert stats.chi2.sf(statistic, count) > 2e-5
    assert stats.chi2.cdf(statistic, count) > 2e-5
    binomial = count * rate * (1 - rate)
    assert abs(np.mean(sizes) - batch) < 4.5 * math.sqrt(binomial / steps)
    assert abs(np.var(sizes) / binomial - 1) < 4.5 * math.sqrt(2 / steps)


def test_examples_join_independently() -> None:
    """Over 20,000 batches of five of ten examples, each pair is together in a quarter; fails by chance at 1e-3."""
    together = np.zeros((10, 10))
    for rows in poisson_batches(4, 10, 5, steps=20_000):
        together[np.ix_(rows, rows)] += 1
    pairs = together[np.triu_indices(10, 1)] / 20_000
    assert np.abs(pairs - 0.25).max() < 4.3 * math.sqrt(0.25 * 0.75 / 20_000)


def test_a_batch_of_all_is_all() -> None:
    for batch in (5, 7):
        assert [rows.tolist() for rows in poisson_batches(1, 5, batch, steps=2)] == [[0, 1, 2, 3, 4]] * 2


def test_batches_may_be_empty() -> None:
    sizes = [len(rows) for rows in poisson_batches(2, 50, 1, steps=200)]
    assert 0 in sizes
    assert max(sizes) > 1
