"""The rotation: an isometry, its own inverse, Sylvester's matrix, and even."""

from __future__ import annotations

import numpy as np
import pytest

from hanse.core.errors import SettingError
from hanse.core.randomness import stream
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.rotate import Rotate, _hadamard, _orders, _rotated, _split
from hanse.testing.fakes import make_update
from tests.pipeline.cases import bound, model, numbers, opened

RNG = stream(0, "unused")


def sylvester(order: int) -> np.ndarray:
    """`(-1)^(popcount(i & j)) / √n`, by its definition."""
    return np.array([[(-1.0) ** (i & j).bit_count() for j in range(order)] for i in range(order)]) / np.sqrt(order)


@pytest.mark.parametrize("size", [2, 4, 8, 32, 64, 128, 1024])
@pytest.mark.parametrize("own", [False, True])
def test_products_of_small_matrices_are_the_large_one(size: int, own: bool) -> None:
    blocks = 3
    vector = np.random.default_rng(size).normal(size=size * blocks)
    wanted = sylvester(size) @ vector.reshape(size, blocks)
    before = vector.copy()
    found = _rotated(vector, size, blocks, own=own)
    np.testing.assert_allclose(found.reshape(size, blocks), wanted, atol=1e-12)
    if not own:
        np.testing.assert_array_equal(vector, before)


def test_orders() -> None:
    for bits in range(1, 15):
        orders = _orders(1 << bits)
        assert np.prod(orders) == 1 << bits
        assert max(orders) <= 16
    np.testing.assert_array_equal(_hadamard(4, "float64"), sylvester(4))


@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 1000, 1025, 20_000])
@pytest.mark.parametrize("block", [2, 64, 1024, 16384])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_and_inner_products_stay(size: int, block: int, dtype: str) -> None:
    update, other = numbers(size, dtype=dtype), numbers(size, dtype=dtype, seed=1)
    pipeline = bound(Pipeline(stages=(Rotate(block=block),)), update.delta)
    sent, more = (pipeline.encode(u, [RNG]) for u in (update, other))
    precise = 1e-5 if dtype == "float32" else 1e-12
    assert sent.delta.l2_norm() == pytest.approx(update.delta.l2_norm(), rel=precise)
    gap = sent.delta.dot(more.delta) - update.delta.dot(other.delta)
    assert abs(gap) <= precise * update.delta.l2_norm() * other.delta.l2_norm()
    back = opened(pipeline, update)
    np.testing.assert_allclose(back.delta.numpy(), update.delta.numpy(), atol=10 * precise)


@pytest.mark.parametrize("size", [1, 10, 63, 64, 65, 100, 1000, 1025, 199_210, 1_663_370])
def test_padding_is_an_eighth_at_most(size: int) -> None:
    block, blocks = _split(size, 1024)
    assert block * blocks >= size
    assert block * blocks - size <= max(size // 8, 63)


def test_one_large_element_is_spread_over_its_block() -> None:
    update = make_update(np.eye(1, 1024, 17, dtype=np.float32)[0])
    pipeline = bound(Pipeline(stages=(Rotate(),)), update.delta)
    np.testing.assert_allclose(np.abs(pipeline.encode(update, [RNG]).delta.numpy()), 1 / 32, rtol=1e-5)


def test_rounds_and_seeds_turn_another_way() -> None:
    update = make_update(model((500,)))
    pipeline = Pipeline(stages=(Rotate(),))
    found = {
        pipeline.in_round(PipelineRound(round=r, seed=s, cohort=1), update.delta.spec)
        .encode(update, [RNG])
        .delta.sha256()
        for r, s in ((1, 1), (2, 1), (1, 2), (1, 1))
    }
    assert len(found) == 3


@pytest.mark.parametrize("block", [0, 1, 3, 1000, 32768])
def test_settings(block: int) -> None:
    with pytest.raises(SettingError, match="power of two"):
        Rotate(block=block)
