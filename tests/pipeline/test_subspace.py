"""Structured low-rank updates: the halves, and that projected steps train the thin factor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hanse.core.errors import EncodingError, NonFiniteUpdateError, PipelineError, SettingError
from hanse.core.messages import Update
from hanse.pipeline.clip import Clip
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.sparsify import TopK
from hanse.pipeline.subspace import Subspace
from hanse.testing.fakes import make_update
from hanse.testing.stage import check_stage
from tests.pipeline.cases import aggregated, around, bound, model, opened

SHAPES = ((12, 9), (9,), (6, 4, 2, 2), (3, 2))


def inside(stage: Subspace, seed: int = 0, *, dtype: str = "float32", client: str = "site-0") -> Update:
    """An update as training makes it: within the client's subspace."""
    update = make_update(model(*SHAPES, dtype=dtype, seed=seed), client=client)
    return opened(bound(around(stage), update.delta), update)


@pytest.mark.parametrize("stage", [Subspace(rank=2), Subspace(rank=2, own=True)], ids=["shared", "own"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conformance(stage: Subspace, dtype: str) -> None:
    check_stage(stage, updates=[inside(stage, i, dtype=dtype, client=f"site-{i}") for i in range(4)])


@pytest.mark.parametrize("own", [False, True])
def test_what_lies_in_the_subspace_comes_back_and_all_else_is_projected(own: bool) -> None:
    stage = Subspace(rank=2, own=own)
    update = make_update(model(*SHAPES, dtype="float64"))
    pipeline = bound(around(stage), update.delta)
    once = opened(pipeline, update)
    np.testing.assert_allclose(opened(pipeline, once).delta.numpy(), once.delta.numpy(), atol=1e-12)
    lost, found = (update.delta - once.delta).arrays(), once.delta.arrays()
    np.testing.assert_array_equal(found["t1"], update.delta.arrays()["t1"])  # a vector travels as it is
    np.testing.assert_array_equal(found["t3"], update.delta.arrays()["t3"])  # rank 2 makes [3, 2] no smaller
    for name, rows in (("t0", 12), ("t2", 6)):
        assert np.linalg.matrix_rank(found[name].reshape(rows, -1)) == 2
        assert abs(np.vdot(lost[name], found[name])) < 1e-9  # an orthogonal projection


def test_clients_have_the_same_subspace_or_their_own_and_each_round_another() -> None:
    delta = model(*SHAPES)

    def basis(stage: Subspace, client: str, round_number: int = 1) -> np.ndarray:
        [found] = bound(around(stage), delta, round_number=round_number).stages
        assert isinstance(found, Subspace)
        return found.bases(client)

    for own in (False, True):
        stage = Subspace(rank=2, own=own)
        assert np.array_equal(basis(stage, "a"), basis(stage, "b")) is not own
        assert not np.array_equal(basis(stage, "a"), basis(stage, "a", 2))
    rows = basis(Subspace(rank=2), "a")[: 12 * 9].reshape(12, 9)
    np.testing.assert_allclose(rows[:2] @ rows[:2].T, np.eye(2), atol=1e-6)
    assert not rows[2:].any()


def test_only_the_thin_factor_is_sent() -> None:
    update = make_update(model(*SHAPES))
    pipeline = bound(around(Subspace(rank=2)), update.delta)
    sent = pipeline.encode(update, [np.random.default_rng(0)])
    shapes = [tensor.shape for tensor in sent.delta.spec.tensors]
    assert shapes == [(12, 2), (9,), (6, 2), (3, 2)]
    assert sent.nbytes == 4 * (24 + 9 + 12 + 6)


def test_the_sum_of_encodings_is_the_encoding_of_the_sum() -> None:
    stage = Subspace(rank=3)
    updates = [inside(stage, i) for i in range(3)]
    found = aggregated(bound(around(stage), updates[0].delta), updates).delta
    wanted = sum(u.delta.numpy().astype(np.float64) for u in updates) / 3
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_what_is_no_number_and_what_is_too_large_is_refused() -> None:
    update = make_update(model(*SHAPES))
    pipeline = bound(around(Subspace(rank=2)), update.delta)
    values = update.delta.numpy().copy()
    for bad in (np.nan, np.inf):
        values[7] = bad
        with pytest.raises(NonFiniteUpdateError, match="holds NaN"):
            pipeline.encode(replace(update, delta=update.delta.with_vector(values)), [np.random.default_rng(0)])
    huge = update.delta.with_vector(np.full(update.delta.spec.size, 3e38, dtype=np.float32))
    try:
        found = opened(pipeline, replace(update, delta=huge))
    except NonFiniteUpdateError:
        return
    assert found.delta.numpy().dtype == np.float32


def test_bad_settings_and_places_are_refused() -> None:
    with pytest.raises(SettingError, match="rank"):
        Subspace(rank=0)
    with pytest.raises(PipelineError, match="rank 40 makes smaller"):
        bound(around(Subspace(rank=40)), model(*SHAPES))
    with pytest.raises(PipelineError, match="`Subspace` restricts what clients train, and `Clip` stands left"):
        around(Clip(norm=1.0), Subspace())
    with pytest.raises(PipelineError, match="`TopK` keeps at the client"):
        around(Subspace(), TopK())
    with pytest.raises(PipelineError, match="in_round"):
        opened(around(Subspace()), make_update(model(*SHAPES)))


def test_a_reply_of_another_size_is_refused() -> None:
    update = make_update(model(*SHAPES))
    pipeline = bound(around(Subspace(rank=2, own=True), Quantize()), update.delta)
    other = bound(around(Subspace(rank=3, own=True), Quantize()), update.delta)
    with pytest.raises(EncodingError):
        pipeline.open(other.encode(update, [np.random.default_rng(i) for i in range(2)]))
