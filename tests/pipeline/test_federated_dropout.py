"""Federated dropout: which elements make the smaller model, and which models it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hanse.core.errors import NonFiniteUpdateError, PipelineError, SettingError
from hanse.core.params import Params
from hanse.pipeline.clip import Clip
from hanse.pipeline.federated_dropout import FederatedDropout
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.sparsify import TopK
from hanse.testing.fakes import make_update
from hanse.testing.stage import check_stage
from tests.pipeline.cases import around, bound, model, opened

DENSE = ((8, 5), (8,), (6, 8), (6,), (3, 6), (3,))
CONVOLUTIONS = ((4, 1, 3, 3), (4,), (6, 4, 3, 3), (10, 6 * 4), (10,), (2, 10))


def in_round(delta: Params, rate: float = 0.5, round_number: int = 1) -> FederatedDropout:
    [stage] = bound(around(FederatedDropout(rate=rate)), delta, round_number=round_number).stages
    assert isinstance(stage, FederatedDropout)
    return stage


@pytest.mark.parametrize("shapes", [DENSE, CONVOLUTIONS], ids=["dense", "convolutions"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conformance(shapes: tuple[tuple[int, ...], ...], dtype: str) -> None:
    stage, updates = FederatedDropout(rate=0.4), []
    for i in range(4):  # as training makes them: nothing moves that is left out
        update = make_update(model(*shapes, dtype=dtype, seed=i), client=f"site-{i}")
        updates.append(opened(bound(around(stage), update.delta), update))
    check_stage(stage, updates=updates)


def test_units_go_with_their_row_their_bias_and_their_column() -> None:
    delta = model(*DENSE)
    kept = delta.with_vector(in_round(delta).trained("").astype(np.float32)).arrays()
    first, second = kept["t1"].astype(bool), kept["t3"].astype(bool)
    assert (first.sum(), second.sum()) == (4, 3)
    np.testing.assert_array_equal(kept["t0"], np.outer(first, np.ones(5)))
    np.testing.assert_array_equal(kept["t2"], np.outer(second, first))
    np.testing.assert_array_equal(kept["t4"], np.outer(np.ones(3), second))
    assert kept["t5"].all()


def test_a_filter_goes_with_all_its_places_in_the_dense_layer_behind() -> None:
    delta = model(*CONVOLUTIONS)
    kept = delta.with_vector(in_round(delta).trained("").astype(np.float32)).arrays()
    filters = kept["t2"][:, kept["t1"].astype(bool)].any(axis=(1, 2, 3))
    assert filters.sum() == 3
    columns = kept["t3"][kept["t4"].astype(bool)]
    np.testing.assert_array_equal(columns, np.tile(np.repeat(filters, 4), (5, 1)))
    assert kept["t5"].any(axis=0).sum() == 5


def test_the_encoding_is_the_smaller_model() -> None:
    update = make_update(model(*CONVOLUTIONS))
    pipeline = bound(around(FederatedDropout(rate=0.5)), update.delta)
    sent = pipeline.encode(update, [np.random.default_rng(0)])
    shapes = [tensor.shape for tensor in sent.delta.spec.tensors]
    assert shapes == [(2, 1, 3, 3), (2,), (3, 2, 3, 3), (5, 12), (5,), (2, 5)]


def test_each_round_draws_other_units_and_one_always_stays() -> None:
    delta = model(*DENSE)
    masks = {in_round(delta, round_number=r).trained("").tobytes() for r in range(1, 6)}
    assert len(masks) == 5
    assert in_round(delta, rate=0.99).trained("").sum() == 5 + 1 + 1 + 1 + 3 + 3
    assert in_round(delta, rate=0.0).trained("").all()


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (((8, 5), (8,), (8,)), "`t2` \\[8\\] is neither"),
        (((8, 5), (6, 7)), "`t1` \\[6, 7\\] does not take the 8 outputs"),
        (((8, 5), (6, 16)), "does not take the 8 outputs"),
        (((4, 1, 3, 3), (6, 2, 3, 3)), "does not take the 4 outputs"),
        (((4, 3), (4, 4, 2, 2)), "does not take the 4 outputs"),
        (((4, 3, 2), (4, 4)), "`t0` \\[4, 3, 2\\] is neither"),
        (((4, 3), (4,)), "this model has 1 of them"),
    ],
)
def test_models_whose_layers_stand_in_no_row_are_refused(shapes: tuple[tuple[int, ...], ...], says: str) -> None:
    with pytest.raises(PipelineError, match=says):
        bound(around(FederatedDropout()), model(*shapes))


def test_a_model_with_buffers_is_refused() -> None:
    arrays = {"a": np.zeros((4, 3), np.float32), "b": np.zeros((2, 4), np.float32), "mean": np.zeros(4, np.float32)}
    with pytest.raises(PipelineError, match=r"`mean` .* is a buffer"):
        bound(around(FederatedDropout()), Params.from_arrays(arrays, buffers=["mean"]))


def test_bad_settings_and_places_are_refused() -> None:
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(SettingError, match="rate"):
            FederatedDropout(rate=rate)
    with pytest.raises(PipelineError, match="`FederatedDropout` restricts what clients train, and `Clip` stands left"):
        around(Clip(norm=1.0), FederatedDropout())
    with pytest.raises(PipelineError, match="`TopK` keeps at the client"):
        around(FederatedDropout(), TopK())
    assert around(FederatedDropout(), Quantize()).encodes_broadcast
    assert not around(Quantize()).encodes_broadcast
    update = make_update(model(*DENSE))
    values = update.delta.numpy().copy()
    values[3] = np.nan
    with pytest.raises(NonFiniteUpdateError):
        in_round(update.delta).encode(replace(update, delta=update.delta.with_vector(values)), np.random.default_rng(0))
