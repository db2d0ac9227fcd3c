"""Batches by Poisson sampling, and normal numbers in bulk: fixed keys, and what chance alone would make fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from hanse.trainers.private import key_stream, noise
from hanse.trainers.private.batches import poisson_batches
from hanse.trainers.private.key_stream import key_of, noise_kernels, random_words
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


def test_tails_are_there_to_five_deviations() -> None:
    """P(|z| > 5) = 5.73e-7: of 40 million numbers 22.9 are beyond; outside of 5 to 48 by chance at 1e-5."""
    normal, out, beyond, largest = NormalNoise(11), torch.empty(1_000_000), 0, 0.0
    for _ in range(40):
        normal.fill(out)
        beyond += int((out.abs() > 5).sum())
        largest = max(largest, float(out.abs().max()))
    assert 5 <= beyond <= 48
    assert 5 < largest < 6.77


def test_steps_do_not_go_together() -> None:
    """Products of six steps' noise, 100,000 numbers each: by chance a key fails with probability 1e-4."""
    normal, out, each = NormalNoise(12), torch.empty(100_000), []
    for _ in range(6):
        normal.fill(out)
        each.append(out.double().numpy().copy())
    products = np.array(each) @ np.array(each).T / 100_000
    assert np.abs(products[np.triu_indices(6, 1)]).max() < 4.5 / math.sqrt(100_000)


def test_words_are_chacha20_s() -> None:
    """RFC 8439, appendix A.1, test vectors 1 and 2: of a key of zeros, blocks 0 and 1."""
    zeros = np.zeros(8, np.uint32)
    (words,) = random_words(zeros, 0, 1)
    first, second = words[0].T[:2].astype("<u4").tobytes().hex()[:64], words[0].T[1].astype("<u4").tobytes().hex()[:32]
    assert first == "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    assert second == "9f07e7be5551387a98ba977c732d080d"


@pytest.mark.parametrize("first", [0, (1 << 32) - 24])
def test_numpy_and_machine_code_give_the_same_bits(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if noise_kernels() is None:
        pytest.skip("there is no C++ compiler")
    key = key_of(5, "test")
    words, numbers = _both(key, first)
    for module in (key_stream, noise):
        monkeypatch.setattr(module, "noise_kernels", lambda: None)
    others = _both(key, first)
    assert np.array_equal(words, others[0])
    assert np.array_equal(numbers.view(np.uint32), others[1].view(np.uint32))


def _both(key: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    words = np.concatenate(list(random_words(key, first, 300)))
    normal, out = NormalNoise(5), torch.empty(300_001)
    normal._block = first
    normal.fill(out)
    return words, out.numpy()


def test_the_transform_is_right_everywhere() -> None:
    """Against float64, for words at the ends, around √½ and at the quarters of a turn, and for 100,000 others."""
    edges = np.array([0, 1, 2, 3037000499, 3037000500, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
    turns = np.array([0, 2**29 - 1, 2**29, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 3 * 2**29], np.uint32)
    chance = next(random_words(key_of(1, "test"), 0, 400)).reshape(-1)
    pairs = np.repeat(edges, 8), np.tile(turns, 8)
    words = np.concatenate([np.stack([np.tile(own, 2) for own in pairs]).reshape(-1), chance]).reshape(-1, 2, 128)
    u = (words[:, 0].astype(np.float64) + 0.5) / 2**32
    angle = words[:, 1].view(np.int32) * (math.pi / 2**31)
    r = np.sqrt(-2 * np.log(u))
    wanted = np.stack([r * np.cos(angle), r * np.sin(angle)], 1).reshape(-1)
    assert np.abs(noise._normal(words) - wanted).max() < 1e-6
    assert np.abs(noise._radius(words[:, 0]) / r - 1).max() < 1e-6


@pytest.mark.parametrize("numpy_alone", [False, True])
def test_noise_is_added_by_place(numpy_alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of lengths that are no multiples of anything, in any order in memory: the same bits as all at once."""
    shapes = ((3, 5, 7, 2), (1,), (0,), (300,), (41, 13))
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes]
    drawn, normal = torch.empty(sum(own.numel() for own in start)), NormalNoise(9)
    wanted = []
    for _ in range(2):
        normal.fill(drawn)
        parts = torch.split(drawn * np.float32(0.7), [own.numel() for own in start])
        wanted.append([own * np.float32(0.3) + part.view(own.shape) for own, part in zip(start, parts, strict=True)])
    if numpy_alone:
        for module in (key_stream, noise):
            monkeypatch.setattr(module, "noise_kernels", lambda: None)
    for order in (torch.contiguous_format, torch.channels_last):
        normal = NormalNoise(9)
        for step in wanted:
            found = [own.clone() for own in start]
            found[0] = found[0].contiguous(memory_format=order)
            normal.add_to(found, factor=0.3, deviation=0.7)
            assert all(torch.equal(a, b) for a, b in zip(found, step, strict=True))


def test_a_key_s_numbers_are_its_own() -> None:
    assert np.array_equal(_drawn(8, 1000), _drawn(8, 1000))
    assert not np.array_equal(_drawn(8, 1000), _drawn(9, 1000))
    assert not np.array_equal(_drawn(8, 1000), _drawn(8 + (1 << 100), 1000))  # all 128 bits count
    normal, first, second = NormalNoise(8), torch.empty(1000), torch.empty(1000)
    normal.fill(first)
    normal.fill(second)
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
