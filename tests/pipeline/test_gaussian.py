"""Central Gaussian noise: its standard deviation, what it is added to, and what lying clients can do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hanse.aggregators.sum import Sum
from hanse.core.aggregate import Aggregate
from hanse.core.errors import PrivacyError, SettingError
from hanse.core.params import Params
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.clip import Clip
from hanse.pipeline.gaussian import CentralGaussian, vector_multiplier
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.rotate import Rotate
from hanse.testing.fakes import make_update
from tests.pipeline.cases import numbers, rngs


def private(*stages: Stage, z: float = 1.0, expected: float = 4.0) -> Pipeline:
    mechanism = CentralGaussian(noise_multiplier=z)
    return Pipeline(stages=stages, aggregator=Sum(expected=expected), weighting="uniform", mechanism=mechanism)


def released(pipeline: Pipeline, *updates: np.ndarray, lie: float = 1.0, key: int = 0) -> Aggregate:
    """The aggregate of these deltas; each client multiplies what it sends by `lie`."""
    made = [make_update(values, client=f"{i}") for i, values in enumerate(updates)]
    spec = made[0].delta.spec
    states = pipeline.initial_states()
    given = pipeline.in_round(PipelineRound(round=1, seed=1, cohort=len(made), states=states), spec)
    total = given.zero(spec)
    for update in made:
        sent = given.encode(update, rngs(given))
        total = given.accumulate(total, given.open(replace(sent, delta=lie * sent.delta), expected=spec))
    sources = [stream(key, "finish", i) for i in range(len(given.stages) + 1)]
    return given.finish(total, rngs=sources, spec=spec)


@pytest.mark.parametrize("stages", [(Clip(norm=3.0),), (Clip(norm=3.0), Rotate()), (Rotate(), Clip(norm=3.0))])
def test_the_noise_has_the_deviation_that_is_claimed(stages: tuple[Stage, ...]) -> None:
    """20,000 elements: their variance over that claimed is within 1 ± 6 √(2/n), but for a chance below 1e-6."""
    n, z, expected = 20_000, 1.5, 4.0
    found = released(private(*stages, z=z, expected=expected), np.zeros(n, dtype=np.float32)).delta.numpy()
    std = z * 3.0 / expected
    assert abs(np.mean(found.astype(np.float64) ** 2) / std**2 - 1) < 6 * math.sqrt(2 / n)
    assert abs(found.mean()) < 6 * std / math.sqrt(n)


def test_the_divisor_is_the_expected_cohort_whoever_answers() -> None:
    pipeline = private(Clip(norm=1e9), z=1e-15, expected=10.0)
    vector = np.array([5.0, -2.0], dtype=np.float32)
    np.testing.assert_allclose(released(pipeline, vector).delta.numpy(), vector / 10, rtol=1e-4)
    np.testing.assert_allclose(released(pipeline, vector, vector).delta.numpy(), vector / 5, rtol=1e-4)


@pytest.mark.parametrize("stages", [(Clip(norm=1.0),), (Clip(norm=1.0), Rotate())])
def test_one_client_that_does_not_clip_moves_the_sum_by_the_norm_at_most(stages: tuple[Stage, ...]) -> None:
    update = numbers(500).delta.numpy()
    pipeline = private(*stages, z=1e-12, expected=1.0)
    assert released(pipeline, update, lie=1e6).delta.l2_norm() <= 1.0 + 1e-6


def test_without_noise_nothing_changes() -> None:
    total = Aggregate(delta=numbers(3).delta, num_clients=1, num_examples=1)
    assert CentralGaussian(noise_multiplier=0.0).release(total, Clip(norm=1.0), stream(0, "n")) is total


def test_told_numbers_get_noise_of_their_own() -> None:
    clip = Clip(norm=2.0, adaptive=True, bit_noise=0.05)
    total = Aggregate(
        delta=Params.from_arrays({"w": np.zeros(20_000)}),
        num_clients=100,
        num_examples=1,
        extras={
            "stage.clip.below": Params.from_arrays({"below": np.zeros(1)}),
            "c": Params.from_arrays({"w": np.zeros(20_000)}),
        },
        divisor=100.0,
    )
    noisy = [CentralGaussian(noise_multiplier=1.0).release(total, clip, stream(k, "n")) for k in range(400)]
    told = np.array([a.extras["stage.clip.below"].numpy()[0] for a in noisy])
    assert abs(told.var() / 25.0 - 1) < 6 * math.sqrt(2 / 400)
    std = 2.0 / math.sqrt(1 - 1 / 100)  # z_Δ = (1 - (2 · 5)⁻²)^(-1/2)
    for vector in (noisy[0].delta, noisy[0].extras["c"]):
        assert abs(vector.numpy().var() / std**2 - 1) < 6 * math.sqrt(2 / 20_000)
    assert not np.array_equal(noisy[0].delta.numpy(), noisy[0].extras["c"].numpy())


def test_the_multiplier_of_the_vectors() -> None:
    assert vector_multiplier(2.0, ()) == pytest.approx(2.0)
    z, bit = 1.0, 5.0
    both = vector_multiplier(z, (bit,))
    assert both**-2 + (2 * bit) ** -2 == pytest.approx(z**-2)
    for told in ((0.5,), (0.4,), (0.0,), (0.7, 0.7)):
        with pytest.raises(PrivacyError, match="bit_noise"):
            vector_multiplier(1.0, told)


@pytest.mark.parametrize("z", [-1.0, math.inf, math.nan])
def test_settings(z: float) -> None:
    with pytest.raises(SettingError, match="noise_multiplier"):
        CentralGaussian(noise_multiplier=z)
