"""The same bits for any number of threads of the linear algebra library: sites and workers have unlike ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hanse

PROGRAM = """
import hashlib
import numpy as np
from hanse.core.params import Params
from hanse.core.randomness import stream
from hanse.pipeline.clip import Clip
from hanse.pipeline.count_sketch import CountSketch
from hanse.pipeline.low_rank import LowRank
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sign import Sign
from hanse.pipeline.sparsify import RandomK, TopK
from hanse.testing.fakes import make_update

rng = np.random.default_rng(0)
found = hashlib.sha256()
for dtype in ("float32", "float64"):
    arrays = {"a": rng.normal(size=(300, 700)).astype(dtype), "b": rng.normal(size=9).astype(dtype)}
    update = make_update(Params.from_arrays(arrays))
    for stages in (
        (Clip(norm=1.0), Rotate(), Quantize()),
        (Rotate(block=16384),),
        (LowRank(),),
        (Sign(),),
        (TopK(), Quantize(bits=3)),
        (RandomK(),),
        (CountSketch(),),
    ):
        given = PipelineRound(round=1, seed=1, cohort=1)
        pipeline = Pipeline(stages=stages).in_round(given, update.delta.spec)
        sent = pipeline.encode(update, [stream(0, "t", i) for i in range(len(stages))])
        total = pipeline.accumulate(pipeline.zero(update.delta.spec), pipeline.open(sent))
        aggregate = pipeline.finish(total, spec=update.delta.spec)
        for vector in (sent.delta, *sent.extras.values(), aggregate.delta):
            found.update(vector.numpy().tobytes())
print(found.hexdigest())
"""


def test_one_and_several_threads() -> None:
    source = str(Path(hanse.__file__).parents[1])
    digests = set()
    for threads in ("1", "2", "3"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        env = {**os.environ, "PYTHONPATH": source, **dict.fromkeys(names, threads)}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
