"""Whole private runs, attacked: canaries are never told apart better than claimed, and are where noise is missing.

A canary is a client whose update lies along a coordinate of its own, as far as the clip lets it. Each coordinate of
what is released has noise of its own, so one run gives an independent score for each canary that took part, and for
each coordinate whose canary stayed away. Seeds are fixed. With fresh ones a case that must stay below its claim would
fail wrongly with a probability of at most 1e-4 (the audit's confidence is 0.9999).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hanse.core.aggregate import Aggregate
from hanse.core.protocols import Clips
from hanse.data.federated import FederatedDataset
from hanse.data.split import Split
from hanse.pipeline import local_noise
from hanse.pipeline.clip import Clip
from hanse.pipeline.correlated import BandedNoise, ReleasedRound, TreeNoise
from hanse.pipeline.distributed import DistributedNoise
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.integer_noise import IntegerNoise
from hanse.pipeline.local_noise import LocalGaussian, LocalLaplace
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.privacy.audit import Audit, audit_epsilon
from hanse.privacy.budget import Budget
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.selection import Cyclic, Everyone
from hanse.rounds.settings import EvaluateSettings, RoundSettings
from hanse.simulation.parts import Simulation
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask

CANARIES = 512
BUDGET = Budget(epsilon=2.0, delta=1e-5)
CLIP = Clip(norm=0.25)


def _init() -> dict[str, np.ndarray]:
    return {"w": np.zeros(2 * CANARIES, dtype=np.float32)}


def _train(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    weights["w"][int(x[0, 0])] += np.float32(1000)  # whatever the clip, it is at its edge
    return weights


def _evaluate(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"count": float(len(x)), "loss": 0.0}


def canaries(**changes: Any) -> Simulation:
    """A private federation of canaries, the first half of the coordinates."""
    arrays = {
        f"canary-{i}": (np.array([[i]], dtype=np.float32), np.zeros(1, dtype=np.float32)) for i in range(CANARIES)
    }
    parts: dict[str, Any] = {
        "dataset": FederatedDataset.from_arrays(arrays, split=Split(test=0)),
        "task": CallableTask(init=_init, train=_train, evaluate=_evaluate, name="canaries"),
        "strategy": FedAvg(weighting="uniform"),
        "pipeline": Pipeline(stages=(CLIP,), weighting="uniform"),
        "settings": RoundSettings(
            rounds=2, seed=11, cohort=Everyone(), evaluate=EvaluateSettings(clients="none", initial=False)
        ),
        "privacy": PrivacySettings(mechanism=CentralGaussian(), budget=BUDGET),
    }
    return Simulation(**(parts | changes))


def attacked(simulation: Simulation) -> Audit:
    """The last model is attacked: how far each coordinate moved."""
    moved = run_simulation(simulation).params.numpy()
    return audit_epsilon(moved[:CANARIES], moved[CANARIES:], delta=1e-5, confidence=0.9999)


def claimed(simulation: Simulation) -> float:
    settled = simulation.settled_privacy
    assert settled is not None
    planned = settled.planned()
    assert planned is not None
    return planned.epsilon


def in_turns(simulation: Simulation) -> Simulation:
    """Four rounds, in which each canary takes part twice."""
    settings = replace(simulation.settings, rounds=4, cohort=Cyclic(size=CANARIES // 2))
    return replace(simulation, settings=settings)


def local(stage: Any) -> Simulation:
    return canaries(
        pipeline=Pipeline(stages=(stage,), weighting="uniform"),
        privacy=PrivacySettings(budget=Budget(epsilon=2.0, delta=1e-5)),
    )


PRIVATE = {
    "gaussian": canaries(),
    "gaussian, adaptive": canaries(
        pipeline=Pipeline(stages=(Clip(norm=0.25, adaptive=True),), weighting="uniform"),
    ),
    "gaussian, rotated and quantised": canaries(
        pipeline=Pipeline(stages=(Rotate(), CLIP, Quantize(bits=8)), weighting="uniform")
    ),
    "tree": in_turns(canaries(privacy=PrivacySettings(mechanism=TreeNoise(), budget=BUDGET))),
    "banded": in_turns(canaries(privacy=PrivacySettings(mechanism=BandedNoise(bands=2), budget=BUDGET))),
    "discrete gaussian, in shares": canaries(privacy=PrivacySettings(mechanism=DistributedNoise(), budget=BUDGET)),
    "skellam, in shares": canaries(privacy=PrivacySettings(mechanism=DistributedNoise(noise="skellam"), budget=BUDGET)),
    "local gaussian": local(LocalGaussian(norm=0.25)),
    "local laplace": local(LocalLaplace(norm=0.25)),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_canaries_are_not_told_apart_better_than_claimed(name: str) -> None:
    assert attacked(PRIVATE[name]).epsilon <= claimed(PRIVATE[name]) <= 2.0


def test_the_attack_finds_something() -> None:
    """Otherwise staying below a claim would mean nothing: here much is claimed, and much is found."""
    loose = canaries(privacy=PrivacySettings(mechanism=CentralGaussian(noise_multiplier=0.6), delta=1e-5))
    assert 1.0 < attacked(loose).epsilon <= claimed(loose)


@dataclass(frozen=True, kw_only=True)
class Forgotten(CentralGaussian):
    """Charges for noise, and adds none."""

    def with_noise(self, noise_multiplier: float) -> Forgotten:
        return replace(self, noise_multiplier=noise_multiplier)

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        return total


def test_central_noise_that_is_missing_is_caught() -> None:
    broken = canaries(privacy=PrivacySettings(mechanism=Forgotten(), budget=BUDGET))
    assert claimed(broken) <= 2.0
    found = attacked(broken)
    assert found.hits == (CANARIES // 2, CANARIES // 2)
    assert found.epsilon > 2.0


def test_correlated_noise_that_is_missing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReleasedRound, "release", lambda self, total, clip, rng: total)
    assert attacked(PRIVATE["tree"]).epsilon > 2.0


def test_local_noise_that_is_missing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = local_noise._reported
    monkeypatch.setattr(
        local_noise, "_reported", lambda update, most, norm, noise: reported(update, most, norm, np.zeros)
    )
    assert attacked(PRIVATE["local gaussian"]).epsilon > 2.0


def test_shares_of_noise_that_are_missing_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IntegerNoise, "_share", lambda self, size, rng: np.zeros(size, dtype=np.int64))
    assert attacked(PRIVATE["discrete gaussian, in shares"]).epsilon > 2.0


def test_shares_of_which_too_few_are_added_are_caught() -> None:
    """Noise for 512 clients in shares of a 512th, of which 16 are in the sum: as if the rest had dropped out."""
    sixteen = canaries()
    settled = PRIVATE["discrete gaussian, in shares"].settled_privacy
    assert settled is not None
    stage = settled.pipeline.stages[-1]
    assert isinstance(stage, IntegerNoise)
    thin = replace(stage, stddev=stage.stddev * (16 / CANARIES) ** 0.5)
    broken = replace(settled.pipeline, stages=(*settled.pipeline.stages[:-1], thin))
    assert attacked(replace(sixteen, pipeline=broken, privacy=None)).epsilon > 2.0


def test_a_clip_that_lets_more_through_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensitivity that is not what was thought: noise for a norm of 0.25, on updates of a norm of 1000."""
    monkeypatch.setattr(Clip, "_clipped", lambda self, update, norm: update)
    assert attacked(PRIVATE["gaussian"]).epsilon > 2.0
