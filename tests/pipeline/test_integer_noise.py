"""The stage by which clients add shares of noise: exact integers, a bound that holds, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hanse.core.aggregate import Aggregate
from hanse.core.errors import NonFiniteUpdateError, PipelineError, PrivacyError, SettingError
from hanse.core.params import Params
from hanse.core.randomness import stream
from hanse.core.stage_round import StageRound
from hanse.pipeline import integer_noise
from hanse.pipeline.distributed import DistributedNoise, granularity, rounded_norm_squared
from hanse.pipeline.integer_noise import IntegerNoise
from hanse.pipeline.residues import as_residues, centred
from hanse.privacy.events import DiscreteGaussian, Skellam
from hanse.testing import check_stage
from hanse.testing.fakes import make_params, make_update

PLAIN = IntegerNoise(kind="discrete_gaussian", granularity=0.01, stddev=0.0, norm_squared=10**6, bits=20)


def bound(stage: IntegerNoise, size: int, cohort: int = 3) -> Any:
    return stage.in_round(StageRound(round=1, seed=1, spec=make_params(np.zeros(size)).spec, cohort=cohort))


def whole(stage: IntegerNoise, values: Any, key: int = 0) -> np.ndarray:
    """What a client sends, as whole numbers around zero."""
    sent = bound(stage, len(values)).encode(make_update(np.asarray(values, dtype=np.float32)), stream(3, "n", key))
    return centred(sent.delta.numpy(), stage.bits)


@pytest.mark.parametrize("stage", [PLAIN, replace(PLAIN, stddev=7.5), replace(PLAIN, stddev=7.5, kind="skellam")])
def test_keeps_the_contract(stage: IntegerNoise) -> None:
    check_stage(stage)


def test_elements_are_rounded_to_neighbours_and_right_on_average() -> None:
    values = np.array([0.123, -0.5, 0.0, 0.0099, -0.0001], dtype=np.float32)
    found = np.array([whole(PLAIN, values, key) for key in range(4000)])
    scaled = values / 0.01
    assert (np.abs(found - scaled) < 1).all()
    deviation = np.sqrt((scaled - np.floor(scaled)) * (np.ceil(scaled) - scaled) / len(found))
    assert (np.abs(found.mean(axis=0) - scaled) <= 5 * deviation + 1e-3).all()  # false failure: 3e-6


def test_rounding_is_drawn_again_until_the_norm_is_within_the_bound() -> None:
    """Half-way elements: their norm after rounding has the most variance there is."""
    values = np.full(100, 0.505, dtype=np.float32)  # 50.5 units
    tight = replace(PLAIN, norm_squared=100 * 5101 // 2)  # the mean of rounded ones: half of all would exceed it
    norms = [int(np.dot(n, n)) for n in (whole(tight, values, key) for key in range(200))]
    assert max(norms) <= tight.norm_squared
    loose = [int(np.dot(n, n)) for n in (whole(PLAIN, values, key) for key in range(200))]
    assert 50 < sum(norm > tight.norm_squared for norm in loose) < 150


def test_a_vector_that_can_not_be_rounded_within_the_bound_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    ones = np.ones(100, dtype=np.float32)
    with pytest.raises(PrivacyError, match="noise was made for at most"):
        whole(replace(PLAIN, norm_squared=990_000), ones)
    monkeypatch.setattr(integer_noise, "_TRIES", 0)
    with pytest.raises(NonFiniteUpdateError, match="can't be rounded within"):
        whole(PLAIN, ones)


@pytest.mark.parametrize("kind", ["discrete_gaussian", "skellam"])
def test_a_share_has_the_variance_that_it_says(kind: Any) -> None:
    found = whole(replace(PLAIN, stddev=20.0, kind=kind), np.zeros(40_000))
    assert found.std() == pytest.approx(20.0, rel=0.02)
    assert abs(found.mean()) < 0.6
    assert stats.kurtosis(found) == pytest.approx(0, abs=0.15)


def test_noise_is_another_one_for_other_randomness_and_the_same_for_the_same() -> None:
    noisy = replace(PLAIN, stddev=5.0)
    first, again, other = (whole(noisy, np.zeros(50), key) for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_nothing_is_told_beside_the_numbers() -> None:
    update = replace(
        make_update(np.zeros(4, dtype=np.float32), num_examples=77, num_steps=9), sums={"loss": 3.0}, seconds=2.0
    )
    sent = bound(PLAIN, 4).encode(update, stream(1, "n"))
    assert (sent.num_examples, sent.num_steps, dict(sent.sums), sent.seconds) == (1, 1, {}, 0.0)
    with pytest.raises(PrivacyError, match=r"\['control'\] would be sent beside"):
        bound(PLAIN, 4).encode(replace(update, extras={"control": update.delta}), stream(1, "n"))


def test_the_sum_is_unwrapped_and_knows_its_noise() -> None:
    stage = bound(replace(PLAIN, stddev=4.0), 3)
    total = as_residues(np.array([-5, 400_000, 0]), 20).astype(np.float64) + 3 * 2.0**20  # as three residues add up
    spec = stage.encoded_spec(make_params(np.zeros(3)).spec)
    summed = Aggregate(delta=Params(replace(spec, dtype="float64"), total), num_clients=9, num_examples=9)
    found = stage.finish(summed, stream(1, "f"))
    np.testing.assert_allclose(found.delta.numpy(), [-0.05, 4000.0, 0.0])
    assert found.noise_stddev == pytest.approx(0.01 * 4.0 * 3)


def test_what_a_sum_is_for_an_accountant() -> None:
    event = replace(PLAIN, stddev=30.0).release_of_sum(10, 64)
    assert isinstance(event, DiscreteGaussian)
    assert (event.stddev, event.num_shares, event.dimension) == (30.0, 10, 64)
    assert event.l2_sensitivity == pytest.approx(1000.0)
    assert event.l2_sensitivity > 1000.0  # rounded up
    assert event.l1_sensitivity == pytest.approx(8000.0)
    assert isinstance(replace(PLAIN, stddev=30.0, kind="skellam").release_of_sum(10, 64), Skellam)
    lattice = replace(PLAIN, stddev=30.0, kind="skellam", norm_squared=9).release_of_sum(10, 64)
    assert isinstance(lattice, Skellam)
    assert (lattice.variance, lattice.l1_sensitivity) == (9000.0, 9.0)  # of whole numbers, |x| is at most x²


def test_bad_settings_and_rounds() -> None:
    with pytest.raises(SettingError, match="bits"):
        replace(PLAIN, bits=25)
    with pytest.raises(SettingError, match="granularity"):
        replace(PLAIN, granularity=0.0)
    with pytest.raises(PipelineError, match="is not exact in float64"):
        bound(replace(PLAIN, bits=24), 3, cohort=2**31)
    with pytest.raises(PipelineError, match="works in a round"):
        PLAIN.encode(make_update(np.zeros(3)), stream(1, "n"))


class TestGranularity:
    def test_the_rounded_norm_by_hand(self) -> None:
        # c = 10, d = 4: always (10 + 2)² = 144; mostly 100 + 1 + 1 · (10 + 1) = 112 at β = exp(-1/2)
        assert rounded_norm_squared(10.0, 4, math.exp(-0.5)) == 112
        assert rounded_norm_squared(10.0, 4, 1e-9) == 144

    @pytest.mark.parametrize("beta", [math.exp(-0.5), 0.05])
    def test_few_roundings_exceed_the_norm(self, beta: float) -> None:
        """The worst there is: all elements half-way. At most β of roundings may exceed the bound."""
        rng, size = stream(1, "beta"), 256
        scaled = np.full(size, 2.5)
        most = rounded_norm_squared(float(np.linalg.norm(scaled)), size, beta)
        norms = (np.floor(scaled + rng.random((20_000, size))) ** 2).sum(axis=1)
        assert (norms > most).mean() <= beta

    def test_by_hand(self) -> None:
        mechanism = DistributedNoise(noise_multiplier=1.0, bits=18)
        found = granularity(mechanism, norm=2.0, cohort=100, stddev=0.2, block=2**14)
        k = math.sqrt(2 * math.log(2e6))
        assert found == pytest.approx(k * math.hypot(200 / 128, 2.0) / (2**17 - 1 - 100))

    def test_skellam_needs_a_little_more_room(self) -> None:
        gaussian, skellam = (
            granularity(DistributedNoise(noise=kind, bits=10), norm=1.0, cohort=10, stddev=0.3, block=4096)  # type: ignore[arg-type]
            for kind in ("discrete_gaussian", "skellam")
        )
        assert gaussian <= skellam < 1.05 * gaussian

    @pytest.mark.parametrize("kind", ["discrete_gaussian", "skellam"])
    @pytest.mark.parametrize("stddev", [0.0, 0.05, 0.5])
    def test_elements_of_sums_wrap_no_more_often_than_it_says(
        self, monkeypatch: pytest.MonkeyPatch, kind: Any, stddev: float
    ) -> None:
        """All clients send the same random direction, the worst for a sum: at p = 0.01, some wrap and few do."""
        monkeypatch.setattr("hanse.pipeline.distributed.WRAP_PROBABILITY", 1e-2)
        clients, block, bits = 20, 256, 12
        mechanism = DistributedNoise(noise=kind, bits=bits)
        unit = granularity(mechanism, norm=1.0, cohort=clients, stddev=stddev, block=block)
        rng = stream(4, "wrap", kind, str(stddev))
        signs = rng.choice([-1.0, 1.0], size=(2000, block))
        summed = clients * signs / math.sqrt(block)  # one long element, spread over its block
        many = np.abs(rng.normal(size=(2000, block)) * clients / math.sqrt(block))  # many elements, likewise
        for spread in (summed, many):
            noise = np.rint(rng.normal(scale=math.sqrt(clients) * stddev / unit, size=spread.shape))
            wrapped = np.abs(np.rint(spread / unit) + noise + clients) > 2 ** (bits - 1) - 1
            assert wrapped.mean() <= 1e-2
        assert wrapped.mean() > 1e-5  # and not because the unit is coarser than it needs to be

    def test_too_small_a_modulus_says_what_is_needed(self) -> None:
        with pytest.raises(PrivacyError, match="do not add up in 8 bits") as caught:
            granularity(DistributedNoise(bits=8), norm=1.0, cohort=200, stddev=0.1, block=64)
        assert "bits = 9 or more" in str(caught.value.hint)
        granularity(DistributedNoise(bits=9), norm=1.0, cohort=200, stddev=0.1, block=64)


def test_the_noise_is_exact_to_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding apart, what is sent is the sampler's numbers and nothing else."""
    monkeypatch.setattr(integer_noise, "discrete_gaussian", lambda variance, size, source: np.arange(size) - 2)
    assert whole(replace(PLAIN, stddev=1.0), np.zeros(5)).tolist() == [-2, -1, 0, 1, 2]
