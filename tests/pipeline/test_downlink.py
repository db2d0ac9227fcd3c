"""Broadcasts through stages: one encoding for all, what clients start from, and what makes no sense there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import PipelineError, ProtocolError, RunError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, TrainPhase, Update
from hanse.core.params import Params
from hanse.core.protocols import Stage
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.clip import Clip
from hanse.pipeline.count_sketch import CountSketch
from hanse.pipeline.downlink import encoded, received
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.federated_dropout import FederatedDropout
from hanse.pipeline.freeze import Freeze
from hanse.pipeline.local_noise import LocalGaussian
from hanse.pipeline.low_rank import LowRank
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sign import Sign
from hanse.pipeline.sparsify import RandomK, TopK
from hanse.pipeline.subspace import Subspace
from tests.pipeline.cases import model
from tests.pipeline.test_fuzz import forged

SHAPES = ((12, 10), (12,), (3, 12))
INITIAL = model(*SHAPES, seed=1)
NOW = INITIAL + 0.1 * model(*SHAPES, seed=2)
PIPELINES: dict[str, Pipeline] = {
    "quantize": Pipeline(broadcast=(Quantize(bits=8),)),
    "rotate, quantize, zstd": Pipeline(broadcast=(Rotate(), Quantize(bits=4), Zstd())),
    "zstd": Pipeline(broadcast=(Zstd(),)),
    "quantize a difference": Pipeline(broadcast=(Quantize(bits=8),), broadcast_base="initial"),
    "top_k": Pipeline(broadcast=(TopK(share=0.2, feedback=False), Quantize()), broadcast_base="initial"),
    "random_k": Pipeline(broadcast=(RandomK(share=0.5),), broadcast_base="initial"),
    "low_rank": Pipeline(broadcast=(LowRank(rank=2, feedback=False),), broadcast_base="initial"),
    "count_sketch": Pipeline(broadcast=(CountSketch(share=0.5),), broadcast_base="initial"),
    "sign": Pipeline(broadcast=(Sign(feedback=False),), broadcast_base="initial"),
    "dropout": Pipeline(stages=(FederatedDropout(rate=0.5),)),
    "dropout, quantize": Pipeline(stages=(FederatedDropout(rate=0.5),), broadcast=(Quantize(bits=8),)),
    "dropout of a difference": Pipeline(
        stages=(FederatedDropout(rate=0.5),), broadcast=(LowRank(rank=2, feedback=False),), broadcast_base="initial"
    ),
}
DETERMINED = ((Zstd(),), (Sign(feedback=False),))
"""Stages that draw nothing."""

every = pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)


def in_round(number: int = 2, seed: int = 5) -> PipelineRound:
    return PipelineRound(round=number, seed=seed, cohort=3)


def sent(pipeline: Pipeline, params: Params = NOW, number: int = 2, seed: int = 5) -> Broadcast:
    return encoded(pipeline, Broadcast(params, {"control": INITIAL}), in_round(number, seed), initial=lambda: INITIAL)


def travelled(broadcast: Broadcast, number: int = 2) -> TrainPhase:
    """As it comes from the wire: the model's encoding in the model's place, what it travels with among the extras."""
    assert broadcast.sent is not None
    vectors = dict(broadcast.sent)
    arrived = Broadcast(vectors.pop("params"), {**broadcast.extras, **vectors})
    return TrainPhase(round=number, broadcast=arrived, work=LocalWork(), cohort=3)


def opened(pipeline: Pipeline, phase: TrainPhase) -> Broadcast:
    return received(pipeline, phase, seed=5, spec=INITIAL.spec, initial=lambda: INITIAL).broadcast


@every
def test_clients_start_from_what_the_server_says_they_do(pipeline: Pipeline) -> None:
    broadcast = sent(pipeline)
    found = opened(pipeline, travelled(broadcast))
    assert found.params.spec == NOW.spec
    assert found.params.sha256() == broadcast.params.sha256()
    assert set(found.extras) == {"control"}
    np.testing.assert_array_equal(found.extras["control"].numpy(), INITIAL.numpy())


@every
def test_the_encoding_is_smaller_the_same_again_and_another_next_round(pipeline: Pipeline) -> None:
    one, same, later = sent(pipeline), sent(pipeline), sent(pipeline, number=3)

    def content(broadcast: Broadcast) -> list[bytes]:
        assert broadcast.sent is not None
        return [vector.numpy().tobytes() for vector in broadcast.sent.values()]

    assert content(one) == content(same)
    assert one.nbytes == sum(map(len, content(one))) + INITIAL.spec.nbytes
    assert one.decoded_nbytes == 2 * INITIAL.spec.nbytes
    assert one.nbytes < one.decoded_nbytes or pipeline.broadcast == (Zstd(),)  # numbers that are random to it
    assert (content(one) == content(later)) == (pipeline.broadcast in DETERMINED)


def test_what_is_lost_is_what_the_stages_lose() -> None:
    full = sent(PIPELINES["zstd"]).params
    np.testing.assert_array_equal(full.numpy(), NOW.numpy())
    for name in ("quantize", "quantize a difference"):
        scale = NOW if name == "quantize" else NOW - INITIAL
        step = np.abs(scale.numpy()).max() * 2 / 254
        lost = np.abs(sent(PIPELINES[name]).params.numpy() - NOW.numpy())
        assert 0 < lost.max() <= step * 1.001
    mean = np.mean([sent(PIPELINES["quantize"], seed=s).params.numpy() for s in range(200)], axis=0)
    assert np.abs(mean - NOW.numpy()).max() < 6 * np.abs(NOW.numpy()).max() * 2 / 254 / 2 / np.sqrt(200)


@pytest.mark.parametrize("name", ["dropout", "dropout, quantize", "dropout of a difference"])
def test_what_is_left_out_is_zero_where_clients_start(name: str) -> None:
    pipeline = PIPELINES[name]
    [stage] = pipeline.in_round(in_round(), NOW.spec).stages
    assert isinstance(stage, FederatedDropout)
    start = sent(pipeline).params.numpy()
    assert not start[~stage.trained("")].any()
    assert np.count_nonzero(start[stage.trained("")]) > 10


def test_nothing_is_done_without_stages_or_without_a_model() -> None:
    broadcast = Broadcast(NOW)
    assert encoded(Pipeline(), broadcast, in_round(), initial=lambda: INITIAL) is broadcast
    nothing = Broadcast(model())
    assert encoded(PIPELINES["quantize"], nothing, in_round(), initial=lambda: INITIAL) is nothing


def test_a_model_that_can_not_be_encoded_ends_the_run_in_a_sentence() -> None:
    values = NOW.numpy().copy()
    values[5] = np.nan
    with pytest.raises(RunError, match="the model of round 2 can't be encoded for its clients"):
        sent(PIPELINES["dropout"], NOW.with_vector(values))


@pytest.mark.parametrize(
    ("stage", "base", "says"),
    [
        (Clip(norm=1.0), "zero", "`Clip` bounds what one client"),
        (Clip(norm=1.0, adaptive=True), "initial", "`Clip` bounds what one client"),
        (LocalGaussian(norm=1.0, noise_multiplier=1.0), "zero", "`LocalGaussian` hides a client's report"),
        (Modular(range=1.0), "zero", "`Modular` makes whole numbers"),
        (TopK(), "initial", "`TopK` keeps what it did not send"),
        (LowRank(), "initial", "`LowRank` keeps what it did not send"),
        (TopK(feedback=False), "zero", "`TopK` sends the part of a change"),
        (Sign(feedback=False), "zero", "`Sign` sends the part of a change"),
        (RandomK(own=True), "initial", "`RandomK` draws something else for each client"),
        (RandomK(structured=True), "initial", "`RandomK` restricts what clients train"),
        (Freeze(tensors=("t0",)), "zero", "`Freeze` restricts"),
        (Subspace(), "zero", "`Subspace` restricts"),
        (FederatedDropout(), "zero", "`FederatedDropout` restricts"),
    ],
)
def test_stages_that_make_no_sense_there_are_refused(stage: Stage, base: Any, says: str) -> None:
    with pytest.raises(PipelineError, match=f"broadcast: stage {says}"):
        Pipeline(broadcast=(stage,), broadcast_base=base)


def test_bad_orders_and_bases_are_refused() -> None:
    with pytest.raises(PipelineError, match="`Rotate` works on numbers"):
        Pipeline(broadcast=(Quantize(), Rotate()))
    wrong: Any = "last"
    with pytest.raises(PipelineError, match="broadcast_base is 'last'"):
        Pipeline(broadcast=(Quantize(),), broadcast_base=wrong)
    with pytest.raises(PipelineError, match="no stage encodes it"):
        Pipeline(broadcast_base="initial")


def test_a_base_that_comes_out_otherwise_is_refused() -> None:
    pipeline = PIPELINES["top_k"]
    phase = travelled(sent(pipeline))
    with pytest.raises(ProtocolError, match="comes out otherwise here"):
        received(pipeline, phase, seed=5, spec=INITIAL.spec, initial=lambda: NOW)


@pytest.mark.parametrize("name", PIPELINES)
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_whatever_comes_is_refused_in_a_sentence_or_is_a_model(name: str, data: st.DataObject) -> None:
    pipeline = PIPELINES[name]
    phase = travelled(sent(pipeline))
    arrived = phase.broadcast
    update = Update(client="", round=2, delta=arrived.params, num_examples=1, num_steps=0, extras=arrived.extras)
    fake = data.draw(st.composite(forged)(update))
    arrived = Broadcast(fake.delta, fake.extras)
    try:
        with np.errstate(all="raise", under="ignore"):
            found = opened(pipeline, replace(phase, broadcast=arrived))
    except ProtocolError:  # and nothing else, which names the round
        with pytest.raises(ProtocolError, match="the broadcast of round 2"):
            opened(pipeline, replace(phase, broadcast=arrived))
        return
    assert found.params.spec == INITIAL.spec
    assert found.params.numpy().dtype == np.float32
    assert found.params.is_finite()
