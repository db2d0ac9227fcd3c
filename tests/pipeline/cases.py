"""Stages with all kinds of settings, and what tests ask of any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hanse.aggregators.mean import Mean
from hanse.aggregators.sum import Sum
from hanse.core.aggregate import Aggregate
from hanse.core.messages import Update
from hanse.core.params import Params
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.clip import Clip
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sign import Sign
from hanse.pipeline.sparsify import RandomK, TopK
from hanse.testing.fakes import make_update

STAGES: dict[str, Stage] = {
    "clip": Clip(norm=1.0),
    "clip, far": Clip(norm=1e6),
    "clip, linf": Clip(norm=0.5, kind="linf"),
    "clip, adaptive": Clip(norm=2.0, adaptive=True),
    "rotate": Rotate(),
    "rotate, pairs": Rotate(block=2),
    "rotate, 16": Rotate(block=16),
    **{f"quantize, {bits}": Quantize(bits=bits) for bits in (1, 2, 3, 4, 5, 7, 8, 9, 12, 16)},
    "quantize, buckets": Quantize(bits=4, bucket=7),
    "quantize, each": Quantize(bits=3, bucket=1),
    "modular": Modular(range=4.0),
    "modular, 8": Modular(range=1.0, bits=8),
    "modular, 32": Modular(range=4.0, bits=32),
    "modular, 11": Modular(range=1e3, bits=11),
    "top_k": TopK(),
    "top_k, numbers": TopK(share=0.001),
    "top_k, half": TopK(share=0.5, feedback=False),
    "top_k, all": TopK(share=1.0),
    "random_k": RandomK(),
    "random_k, feedback": RandomK(share=0.3, feedback=True),
    "random_k, own": RandomK(share=0.3, own=True),
    "random_k, structured": RandomK(share=0.3, structured=True),
    "random_k, all": RandomK(share=1.0),
    "sign": Sign(),
    "sign, forgetful": Sign(feedback=False),
    "zstd": Zstd(),
    "zstd, 19": Zstd(level=19),
}


def around(stage: Stage, *more: Stage) -> Pipeline:
    """A pipeline of these stages, with what they demand."""
    stages = (stage, *more)
    return Pipeline(
        stages=stages,
        aggregator=Sum() if any(getattr(s, "needs_sum", False) for s in stages) else Mean(),
        weighting="uniform" if any(s.needs_uniform_weights for s in stages) else "examples",
    )


def bound(pipeline: Pipeline, delta: Params, *, cohort: int = 5, round_number: int = 1, seed: int = 7) -> Pipeline:
    """The pipeline in a round, for deltas of this layout."""
    given = PipelineRound(round=round_number, seed=seed, cohort=cohort, states=pipeline.initial_states())
    return pipeline.in_round(given, delta.spec)


def rngs(pipeline: Pipeline, *key: int) -> list[np.random.Generator]:
    return [stream(11, "stage", *key, i) for i in range(len(pipeline.stages))]


def opened(pipeline: Pipeline, update: Update, *key: int) -> Update:
    """What the server makes of one client's encoding, all stages decoded."""
    sent = pipeline.encode(update, rngs(pipeline, *key))
    for stage in reversed(pipeline.stages):
        sent = stage.decode(sent)
    return sent


def aggregated(pipeline: Pipeline, updates: Sequence[Update]) -> Aggregate:
    """Through the whole of a pipeline that is bound to a round."""
    spec = updates[0].delta.spec
    total = pipeline.zero(spec)
    for i, update in enumerate(updates):
        sent = pipeline.encode(update, rngs(pipeline, i))
        total = pipeline.accumulate(total, pipeline.open(sent, expected=spec))
    sources = [stream(11, "finish", i) for i in range(len(pipeline.stages) + 1)]
    return pipeline.finish(total, rngs=sources, spec=spec)


def model(*shapes: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Params:
    """Normal numbers in tensors of these shapes."""
    rng = np.random.default_rng(seed)
    return Params.from_arrays({f"t{i}": rng.normal(size=shape).astype(dtype) for i, shape in enumerate(shapes)})


def numbers(size: int, *, dtype: str = "float32", seed: int = 0) -> Update:
    return make_update(model((size,), dtype=dtype, seed=seed))
