"""What a client may send instead of an encoding: a well-formed update comes of it, or an `UpdateError`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import UpdateError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec, TensorSpec
from hanse.core.protocols import Stage
from hanse.pipeline.clip import Clip
from hanse.pipeline.count_sketch import CountSketch
from hanse.pipeline.encodings import flat_spec
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.federated_dropout import FederatedDropout
from hanse.pipeline.low_rank import LowRank
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sign import Sign
from hanse.pipeline.sparsify import RandomK, TopK
from hanse.pipeline.subspace import Subspace
from hanse.testing.fakes import make_update
from tests.pipeline.cases import STAGES, around, bound, model, numbers, rngs

DTYPES = ("float32", "float64", "float16", "uint8", "uint16", "uint32", "int64", "bool")
TRIED = (
    "clip, adaptive",
    "rotate, 16",
    "quantize, 1",
    "quantize, 5",
    "quantize, 16",
    "quantize, buckets",
    "modular, 8",
    "modular, 32",
    "top_k",
    "top_k, numbers",
    "random_k, feedback",
    "sign",
    "zstd",
)
CHAINS: dict[str, tuple[Stage, ...]] = {
    **{name: (STAGES[name],) for name in TRIED},
    "clip, rotate, quantize": (Clip(norm=1.0, adaptive=True), Rotate(), Quantize(bits=5)),
    "top_k, quantize, zstd": (TopK(share=0.2), Quantize(bits=4), Zstd()),
    "random_k, sign": (RandomK(share=0.5), Sign(feedback=False)),
    "count_sketch": (CountSketch(share=0.4),),
    "low_rank": (LowRank(rank=1),),
    "low_rank, quantize": (LowRank(rank=2, feedback=False), Quantize(bits=3)),
    "subspace": (Subspace(rank=2),),
    "subspace, own, quantize": (Subspace(rank=1, own=True), Quantize(bits=3)),
    "federated_dropout": (FederatedDropout(rate=0.5),),
    "federated_dropout, rotate, quantize": (FederatedDropout(rate=0.3), Rotate(), Quantize(bits=4)),
    "rotate, modular, zstd": (Rotate(), Modular(range=1.0), Zstd()),
}


def vectors(draw: st.DrawFn, like: Params) -> Params:
    """A vector somewhat like one that was sent: cut, grown, mutated, of another type or name, or arbitrary."""
    vector, name = like.numpy().copy(), like.spec.tensors[0].name if like.spec.tensors else "w"
    how = draw(st.sampled_from(["cut", "mutate", "type", "bytes", "name", "shape", "empty", "lie", "numbers"]))
    if how == "cut":
        vector = vector[: draw(st.integers(0, len(vector)))]
    elif how == "mutate" and vector.nbytes:
        raw = vector.view(np.uint8)
        for _ in range(draw(st.integers(1, 4))):
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
        return like.with_vector(vector)
    elif how == "type":
        with np.errstate(all="ignore"):
            vector = np.abs(vector).astype(draw(st.sampled_from(DTYPES)))
    elif how == "bytes":
        vector = np.frombuffer(draw(st.binary(max_size=300)), dtype=np.uint8)
    elif how == "name":
        name = draw(st.text(max_size=5))
    elif how == "shape" and len(vector) % 2 == 0:
        tensor = TensorSpec(name, (2, len(vector) // 2), vector.dtype.name)
        return Params(ParamSpec((tensor,), vector.dtype.name), vector)
    elif how == "empty":
        return Params(ParamSpec(()), np.zeros(0, dtype=np.float32))
    elif how == "lie":  # the layout says one type, the vector has another
        return Params(like.spec, vector.astype(draw(st.sampled_from(("float64", "uint8", "int64")))))
    elif how == "numbers":
        worst = st.sampled_from([0.0, -1.0, 1e38, 3.4e38, -3.4e38, np.nan, np.inf, 1e-45, 2.0**32, 255.0])
        with np.errstate(all="ignore"):
            vector = np.full(len(vector), draw(worst)).astype(vector.dtype)
    return Params(flat_spec(name, len(vector), vector.dtype.name), vector)


def forged(draw: st.DrawFn, sent: Update) -> Update:
    parts = {"": sent.delta, **sent.extras}
    for victim in draw(st.sets(st.sampled_from(sorted(parts)), min_size=1, max_size=2)):
        if victim and draw(st.integers(0, 4)) == 0:
            del parts[victim]
        else:
            parts[victim] = vectors(draw, parts[victim])
    if draw(st.integers(0, 9)) == 0:
        parts["more"] = vectors(draw, sent.delta)
    return replace(sent, delta=parts.pop(""), extras=parts)


def check_opened(pipeline: Pipeline, update: Update, spec: ParamSpec) -> None:
    """Opened as a server opens it, and all the way; each either refuses or has the right layout."""

    def once(opening: Callable[[], Update], wanted: ParamSpec) -> None:
        try:
            with np.errstate(all="raise", under="ignore"):
                found = opening()
        except UpdateError:
            return
        assert wanted.difference(found.delta.spec) is None
        vector = found.delta.numpy()
        assert (vector.shape, vector.dtype.name) == ((wanted.size,), wanted.dtype)

    def all_the_way() -> Update:
        found = update
        for stage in reversed(pipeline.stages):
            found = stage.decode(found)
        return found

    once(lambda: pipeline.open(update, expected=spec), pipeline.aggregated_spec(spec))
    if any("Clip" not in type(stage).__name__ for stage in pipeline.stages):
        once(all_the_way, spec)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_whatever_comes_costs_itself_alone(chain: tuple[Stage, ...], data: st.DataObject) -> None:
    flat, matrices = [((0,),), ((1,),), ((64,),), ((200,),)], [((12, 10), (12,), (4, 12))]
    needs_matrices = isinstance(chain[0], LowRank | Subspace | FederatedDropout)
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    update = make_update(model(*data.draw(st.sampled_from(matrices if needs_matrices else flat)), dtype=dtype))
    pipeline = bound(around(*chain), update.delta)
    sent = pipeline.encode(update, rngs(pipeline))
    check_opened(pipeline, data.draw(st.composite(forged)(sent)), update.delta.spec)


@pytest.mark.parametrize("told", [0, 1, 10**6, 2**62])
def test_a_compressed_update_that_says_it_is_larger_makes_no_bytes(told: int) -> None:
    import zstandard

    update = numbers(100)
    pipeline = bound(around(Zstd()), update.delta)
    bomb = zstandard.ZstdCompressor().compress(bytes(min(told, 10**6)))
    packed = np.frombuffer(bomb, dtype=np.uint8)
    with pytest.raises(UpdateError, match=r"holds|damaged"):
        pipeline.open(replace(update, delta=Params(flat_spec("compressed", len(packed), "uint8"), packed)))
