"""Strategies with moments at the server: oracles by hand, what they reduce to, and the noise that is taken off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError, SettingError
from hanse.core.params import Params
from hanse.strategies.fedadagrad import FedAdagrad
from hanse.strategies.fedadam import FedAdam
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedyogi import FedYogi
from hanse.strategies.moments import MomentState

START = Params.from_arrays({"w": np.array([1.0, -1.0, 0.5]), "mean": np.array([4.0])}, buffers=["mean"])
DELTAS = ([0.3, -0.1, 0.0, 1.0], [0.1, 0.2, 0.0, -2.0], [-0.4, 0.05, 0.0, 0.5])


def aggregated(delta: list[float], **fields: Any) -> Aggregate:
    return Aggregate(delta=START.with_vector(np.array(delta)), num_clients=4, num_examples=40, **fields)


def after(strategy: Any, rounds: int = 3, **fields: Any) -> MomentState:
    state = strategy.init(START)
    for delta in DELTAS[:rounds]:
        state = strategy.step(state, aggregated(delta, **fields))
    found: MomentState = state
    return found


def by_hand(kind: str, beta1: float, *, eta: float = 0.1, beta2: float = 0.9, tau: float = 0.01) -> list[float]:
    """Algorithm 2, one element after the other."""
    found = []
    for i, w in enumerate([1.0, -1.0, 0.5]):
        m, v = 0.0, tau**2
        for delta in DELTAS:
            d = delta[i]
            m = beta1 * m + (1 - beta1) * d
            if kind == "adagrad":
                v = v + d**2
            elif kind == "yogi":
                v = v - (1 - beta2) * d**2 * (1 if v > d**2 else -1 if v < d**2 else 0)
            else:
                v = beta2 * v + (1 - beta2) * d**2
            w += eta * m / (v**0.5 + tau)
        found.append(w)
    return found


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (FedAdam(lr=0.1, beta1=0.8, beta2=0.9, tau=0.01), by_hand("adam", 0.8)),
        (FedYogi(lr=0.1, beta1=0.8, beta2=0.9, tau=0.01), by_hand("yogi", 0.8)),
        (FedAdagrad(lr=0.1, tau=0.01), by_hand("adagrad", 0.0)),
        (FedAdagrad(lr=0.1, beta1=0.5, tau=0.01), by_hand("adagrad", 0.5)),
    ],
    ids=["adam", "yogi", "adagrad", "adagrad with momentum"],
)
def test_by_hand(strategy: Any, wanted: list[float]) -> None:
    found = after(strategy).params.numpy()
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-12)
    assert found[3] == 4.0 + 1.0 - 2.0 + 0.5  # a buffer takes over the mean


@pytest.mark.parametrize("kind", [FedAdam, FedYogi, FedAdagrad])
def test_reduces_to_fedavg(kind: Any) -> None:
    """With τ so large that v does not matter, and η = 2 τ: √v + τ is 2 τ, as v begins at τ²."""
    tau = 1e8
    strategy = kind(lr=2 * tau, beta1=0.0, tau=tau, **({} if kind is FedAdagrad else {"beta2": 0.0}))
    if kind is FedAdam:  # it forgets where v began
        strategy = replace(strategy, beta2=1 - 1e-12)
    state = FedAvg().init(START)
    for delta in DELTAS:
        state = FedAvg().step(state, aggregated(delta))
    np.testing.assert_allclose(after(strategy).params.numpy(), state.params.numpy(), rtol=1e-6)


def test_the_noise_is_taken_off() -> None:
    strategy = FedAdam(lr=0.1, beta2=0.9, tau=0.01, noise_corrected=True)
    sigma = 0.02
    state = after(strategy, noise_stddev=sigma)
    assert state.noise == pytest.approx(sigma**2 * (1 - 0.9**3))  # what three rounds of noise have added to v
    plain = after(replace(strategy, noise_corrected=False), noise_stddev=sigma)
    np.testing.assert_array_equal(state.second.numpy(), plain.second.numpy())
    assert plain.noise == 0.0
    # one round: η (1 - β₁) Δ / (√(v - n) + τ)
    once = after(strategy, 1, noise_stddev=sigma).params.numpy()
    v = 0.9 * 0.01**2 + 0.1 * 0.3**2 - 0.1 * sigma**2
    assert once[0] == pytest.approx(1.0 + 0.1 * 0.1 * 0.3 / (v**0.5 + 0.01))
    # nothing but noise is no reason to divide by nothing
    drowned = after(strategy, noise_stddev=10.0)
    np.testing.assert_allclose(drowned.params.numpy()[0] - 1.0, _without_second(strategy), rtol=1e-12)


def _without_second(strategy: FedAdam) -> float:
    m, moved = 0.0, 0.0
    for delta in DELTAS:
        m = strategy.beta1 * m + (1 - strategy.beta1) * delta[0]
        moved += strategy.lr * m / strategy.tau
    return moved


def test_without_noise_the_correction_does_nothing() -> None:
    strategy = FedAdam(lr=0.1, noise_corrected=True)
    np.testing.assert_array_equal(
        after(strategy).params.numpy(), after(replace(strategy, noise_corrected=False)).params.numpy()
    )


def test_noise_that_nobody_knows_is_refused() -> None:
    with pytest.raises(PipelineError, match="is not known"):
        after(FedAdam(noise_corrected=True), noise_stddev=None)
    after(FedAdam(), noise_stddev=None)


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        *(
            (kind, *bad)
            for kind in (FedAdam, FedYogi, FedAdagrad)
            for bad in (("lr", 0.0), ("beta1", 1.0), ("tau", 0.0))
        ),
        (FedAdam, "beta2", -0.1),
        (FedYogi, "beta2", 1.0),
    ],
)
def test_bad_settings(kind: Any, setting: str, value: float) -> None:
    with pytest.raises(SettingError, match=setting):
        kind(**{setting: value})


def test_float32_stays_float32() -> None:
    small = Params.from_arrays({"w": np.ones(3, dtype=np.float32)})
    for strategy in (FedAdam(noise_corrected=True), FedYogi(), FedAdagrad()):
        delta = small.with_vector(np.full(3, 0.1, dtype=np.float32))
        state: Any = strategy.step(
            strategy.init(small), Aggregate(delta=delta, num_clients=1, num_examples=1, noise_stddev=0.05)
        )
        assert {state.params.vector.dtype, state.first.vector.dtype, state.second.vector.dtype} == {np.dtype("float32")}
