"""Pipelines of stages, the whole way: the same bits with workers, and stopped and resumed; what they cost and learn."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.sum import Sum
from hanse.core.errors import PipelineError, RunInterrupted
from hanse.core.events import ClientFinished, Event
from hanse.data.federated import FederatedDataset
from hanse.pipeline.clip import Clip
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sign import Sign
from hanse.pipeline.sparsify import RandomK, TopK
from hanse.rounds.run_folder import new_run_folder, read_run
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.checks import check_simulation
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask

ADAPTIVE = Clip(norm=0.3, adaptive=True)
PIPELINES: dict[str, dict[str, Any]] = {
    "clip adaptive, rotate, quantize": {"stages": (ADAPTIVE, Rotate(), Quantize(bits=6))},
    "top_k": {"stages": (TopK(share=0.3),)},
    "modular, sum": {"stages": (Modular(range=2.0, bits=14),), "aggregator": Sum()},
    "random_k kept, sign, zstd": {"stages": (RandomK(share=0.5, feedback=True), Sign(feedback=False), Zstd())},
    "broadcast": {"stages": (Quantize(bits=8),), "broadcast": (Rotate(), Quantize(bits=9))},
    "broadcast of differences": {
        "broadcast": (TopK(share=0.5, feedback=False), Zstd()),
        "broadcast_base": "initial",
        "stages": (TopK(share=0.3),),
    },
    "private": {
        "stages": (ADAPTIVE, Rotate()),
        "aggregator": Sum(expected=4.0),
        "mechanism": CentralGaussian(noise_multiplier=0.05),
    },
}
every = pytest.mark.parametrize("given", PIPELINES.values(), ids=PIPELINES)


def build(dataset: FederatedDataset, task: CallableTask, given: dict[str, Any], *, workers: int = 1) -> Simulation:
    # the noise on what clients tell has to be larger than z allows for four of them: a thousandth of privacy is enough
    stages = tuple(Clip(norm=0.3, adaptive=True, bit_noise=5.0) if s is ADAPTIVE else s for s in given["stages"])
    return Simulation(
        dataset=dataset,
        task=bind_task(task, dataset),
        strategy=FedAvg(weighting="uniform"),
        pipeline=Pipeline(**{**given, "stages": stages, "weighting": "uniform"}),
        settings=RoundSettings(rounds=6, seed=3, cohort=Uniform(size=4)),
        engine=EngineSettings(workers=workers),
    )


@every
def test_the_same_bits_with_workers(federation: FederatedDataset, task: CallableTask, given: dict[str, Any]) -> None:
    alone, pooled = (run_simulation(build(federation, task, given, workers=n)) for n in (1, 2))
    assert alone.record.model_sha256 == pooled.record.model_sha256
    for one, other in zip(alone.history.rounds, pooled.history.rounds, strict=True):
        assert (one.bytes_up, one.stages, one.measured) == (other.bytes_up, other.stages, other.measured)
        assert one.bytes_down == other.bytes_down
        assert not one.failures


@every
def test_stopped_and_resumed_the_bits_are_the_same(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path, given: dict[str, Any]
) -> None:
    whole = run_simulation(build(federation, task, given), folder=new_run_folder(tmp_path, "whole"))
    folder = new_run_folder(tmp_path, "stopped")
    seen = 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, ClientFinished)
        if seen == 14 and isinstance(event, ClientFinished):  # the second of round 4
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted):
        run_simulation(build(federation, task, given), folder=folder, sinks=(interrupt,))
    assert read_run(folder).history.last is not None
    assert read_run(folder).history.last.round == 3  # type: ignore[union-attr]
    resumed = run_simulation(build(federation, task, given), folder=folder)
    assert resumed.record.model_sha256 == whole.record.model_sha256
    assert [r.stages for r in resumed.history.rounds] == [r.stages for r in whole.history.rounds]


def test_the_clipping_norm_moves_and_is_written_down(federation: FederatedDataset, task: CallableTask) -> None:
    run = run_simulation(build(federation, task, PIPELINES["clip adaptive, rotate, quantize"]))
    norms = [record.stages["0"]["norm"] for record in run.history.rounds[1:]]
    assert len(set(norms)) > 1
    below = [record.measured["0.below"] for record in run.history.rounds[1:]]
    for before, after, share in zip(norms, norms[1:], below[1:], strict=False):  # a record holds what came of its round
        assert after == pytest.approx(before * math.exp(-0.2 * (share - 0.5)), rel=1e-6)


def test_they_all_learn(federation: FederatedDataset, task: CallableTask) -> None:
    for name in PIPELINES.keys() - {"private"}:
        run = run_simulation(build(federation, task, PIPELINES[name]))
        losses = run.history.series("loss", "federated")
        assert losses[6] < 0.6 * losses[0], name


@pytest.mark.slow
def test_bytes_are_those_that_were_sent(federation: FederatedDataset, task: CallableTask) -> None:
    """Seven elements: 2 of 7 as float32 and a byte of marks; 14 bits as uint16."""
    sent = {name: run_simulation(build(federation, task, PIPELINES[name])).history.bytes_up for name in PIPELINES}
    assert sent["top_k"] == 6 * 4 * (2 * 4 + 1)
    assert sent["modular, sum"] == 6 * 4 * 7 * 2
    down = {name: run_simulation(build(federation, task, PIPELINES[name])).history.bytes_down for name in PIPELINES}
    assert down["top_k"] == 6 * 4 * 7 * 4
    assert down["broadcast"] == 6 * 4 * (9 + 4)  # 8 numbers of 9 bits, and a scale; rotated, seven are eight


def test_a_cohort_too_large_for_the_modulus_is_refused_before_anything_runs(
    federation: FederatedDataset, task: CallableTask
) -> None:
    given = {"stages": (Modular(range=1.0, bits=3),), "aggregator": Sum()}
    with pytest.raises(PipelineError, match=r"4 clients.*does not fit in 3 bits"):
        check_simulation(build(federation, task, given))


def test_quantised_updates_end_near_the_plain_ones(federation: FederatedDataset, task: CallableTask) -> None:
    plain, coarse = (
        run_simulation(build(federation, task, {"stages": stages})).params.numpy()
        for stages in ((), (Rotate(), Quantize(bits=16)))
    )
    np.testing.assert_allclose(coarse, plain, atol=2e-4)
