"""What stages cost: encode and decode in units of one NumPy copy-and-scale of the same vector, in turns.

The unit is taken in two ways: a copy, and that copy scaled in place (two passes over memory, as a pipeline that only
multiplied would take them); and one product into a new vector (one pass).

CPU time of one thread, the best of several turns: others use these machines too, and a best turn shows the code.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is there

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hanse.aggregators.mean import Mean
from hanse.core.aggregate import Aggregate
from hanse.core.messages import Update
from hanse.core.params import Params
from hanse.core.protocols import Stage
from hanse.core.randomness import from_system, stream
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.clip import Clip
from hanse.pipeline.distributed import DistributedNoise
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.integer_noise import Kind
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.rounds.privacy.distributed import settle_distributed
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.testing.fakes import make_update

MCMAHAN_CNN = 1_663_370
Steps = dict[str, Callable[[], object]]


def copy_and_scale(vector: np.ndarray) -> np.ndarray:
    """The unit: a copy of the vector, and that times a number."""
    copied = vector.copy()
    copied *= np.float32(0.5)
    return copied


def steps(pipeline: Pipeline, update: Update) -> Steps:
    """Each stage's halves by themselves, on what the stage before it makes."""
    found: Steps = {}
    spec, before = update.delta.spec, update
    sent = [before]
    for i, stage in enumerate(pipeline.stages):
        name = f"encode {type(stage).__name__.lower()}"
        found[name] = lambda s=stage, u=sent[-1], i=i: s.encode(u, stream(1, "b", i))
        sent.append(stage.encode(sent[-1], stream(1, "b", i)))
    found["decode and check"] = lambda: pipeline.open(sent[-1], expected=spec)
    opened = pipeline.open(sent[-1], expected=spec)
    aggregate = Aggregate(delta=opened.delta, num_clients=1, num_examples=1)
    for i in reversed(range(pipeline.opened_up_to)):
        stage: Stage = pipeline.stages[i]
        found[f"finish {type(stage).__name__.lower()}"] = lambda s=stage, a=aggregate: s.finish(a, stream(1, "f"))
        aggregate = stage.finish(aggregate, stream(1, "f"))
    return found


def measured(tried: Steps, *, turns: int) -> dict[str, float]:
    """Milliseconds of CPU time: of each step the best of its turns, all steps taking turns."""
    best = dict.fromkeys(tried, float("inf"))
    for _ in range(turns):
        for name, step in tried.items():
            began = time.process_time()
            step()
            best[name] = min(best[name], time.process_time() - began)
    return {name: 1e3 * seconds for name, seconds in best.items()}


def private_steps(update: Update) -> Steps:
    """What privacy costs beside the stages: noise once at the server, or a share of it at each client."""
    total = Aggregate(delta=update.delta, num_clients=100, num_examples=100)
    clip, central = Clip(norm=1.0), CentralGaussian(noise_multiplier=1.0)
    found: Steps = {"gaussian, server": lambda: central.release(total, clip, from_system())}
    kinds: tuple[Kind, ...] = ("discrete_gaussian", "skellam")
    for kind in kinds:
        mechanism = DistributedNoise(noise=kind, noise_multiplier=1.0)
        settled = settle_distributed(
            PrivacySettings(mechanism=mechanism, delta=1e-5),
            mechanism,
            Pipeline(stages=(clip,), weighting="uniform"),
            RoundSettings(rounds=1, cohort=Uniform(size=100)),
            update.delta.spec,
            100,
            amplified=False,
        )
        pipeline = settled.pipeline.in_round(PipelineRound(round=1, seed=7, cohort=100), update.delta.spec)
        *before, noisy = pipeline.stages
        rotated = update
        for stage in before:
            rotated = stage.encode(rotated, stream(1, "b"))
        found[f"{kind.replace('discrete_', '')} share"] = lambda s=noisy, u=rotated: s.encode(u, from_system())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=MCMAHAN_CNN, help="elements; by default those of McMahan's CNN")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--private", action="store_true", help="noise too: at the server, and in shares of 100 clients")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    vector = np.random.default_rng(0).normal(size=told.size).astype(np.float32)
    update = make_update(Params.from_arrays({"w": vector}))
    whole = Pipeline(stages=(Clip(norm=1.0), Rotate(), Quantize(bits=told.bits)), aggregator=Mean())
    pipeline = whole.in_round(PipelineRound(round=1, seed=7, cohort=1), update.delta.spec)
    units: Steps = {
        "copy, and scale": lambda: copy_and_scale(vector),
        "scaled copy": lambda: vector * np.float32(0.5),
    }
    private = private_steps(update) if told.private else {}
    took = measured({**units, **steps(pipeline, update), **private}, turns=told.turns)
    total = sum(spent for name, spent in took.items() if name not in units and name not in private)
    print(f"{'':18s} {'ms':>7s} {'x copy, and scale':>18s} {'x scaled copy':>14s}")
    for name, spent in [*took.items(), ("all stages", total)]:
        print(f"{name:18s} {spent:7.3f} {spent / took['copy, and scale']:18.1f} {spent / took['scaled copy']:14.1f}")
    if told.json:
        ratios = {name: total / took[name] for name in units}
        told.json.write_text(json.dumps({"size": told.size, "bits": told.bits, "ms": took, "ratios": ratios}))


if __name__ == "__main__":
    main()
