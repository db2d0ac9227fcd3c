"""Runs with noise that hangs together over rounds: the same bits, one charge, limits that are kept."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import PrivacyBudgetError, PrivacyError, RunInterrupted
from hanse.core.events import Event, RoundFinished
from hanse.data.federated import FederatedDataset
from hanse.pipeline.clip import Clip
from hanse.pipeline.correlated import BandedNoise, TreeNoise
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.events import CorrelatedGaussian
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.history import RoundRecord
from hanse.rounds.privacy.run import LEDGER, NOISE_KEYS, RunPrivacy, scope_of
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settle import check_timely
from hanse.rounds.privacy.spending import spent_by_round
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.selection import Cyclic, Everyone, Fixed, Poisson, Separated, Uniform
from hanse.rounds.settings import EvaluateSettings, FederationSettings, RoundSettings
from hanse.simulation.engine import EngineSettings
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask
from tests.simulation.test_privacy import BUDGET, private
from tests.simulation.test_simulate import build

TAKING_TURNS = RoundSettings(rounds=12, seed=3, cohort=Separated(size=1, min_separation=4))
MECHANISMS = [TreeNoise(), TreeNoise(restart_every=4), BandedNoise(bands=4)]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_whole_run_is_one_release_that_keeps_the_budget(
    federation: FederatedDataset, task: CallableTask, mechanism: Any
) -> None:
    settings = PrivacySettings(mechanism=mechanism, budget=BUDGET)
    settled = private(federation, task, settings=TAKING_TURNS, privacy=settings).settled_privacy
    assert settled is not None
    planned = settled.planned()
    assert planned is not None
    assert 3.99 < planned.epsilon <= 4.0
    assert settled.curve() == [(12, planned.epsilon)]
    event = settled.event
    assert isinstance(event, CorrelatedGaussian)
    assert (event.rounds, event.participations, event.min_separation) == (12, 3, 4)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_same_bits_with_workers_and_after_a_stop_and_one_charge(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path, mechanism: Any
) -> None:
    settings = PrivacySettings(mechanism=mechanism, budget=BUDGET)
    simulation = private(federation, task, settings=TAKING_TURNS, privacy=settings)
    whole = run_simulation(simulation, folder=new_run_folder(tmp_path, "whole"))
    two = run_simulation(replace(simulation, engine=EngineSettings(workers=2)))
    folder = new_run_folder(tmp_path, "stopped")

    def interrupt(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round == 5:
            raise RunInterrupted("enough")

    with pytest.raises(RunInterrupted):
        run_simulation(simulation, folder=folder, sinks=(interrupt,))
    resumed = run_simulation(simulation, folder=folder)
    assert len({run.params.sha256() for run in (whole, two, resumed)}) == 1
    entries = PrivacyLedger(folder / LEDGER, scope=scope_of("stopped")).entries()
    assert [(entry.key.round, entry.key.attempt) for entry in entries] == [(0, 0)]
    account = spent_by_round(folder, "stopped", {"privacy": {"mechanism": {"use": "tree"}}}, delta=1e-5)
    assert account.by_round[0].epsilon <= 4.0
    assert not account.local


@pytest.mark.parametrize("mechanism", [TreeNoise(noise_multiplier=0), BandedNoise(bands=1, noise_multiplier=0)])
def test_without_noise_and_within_the_clip_it_is_the_uniform_mean(
    federation: FederatedDataset, task: CallableTask, mechanism: Any
) -> None:
    settings = RoundSettings(rounds=4, seed=3, cohort=Everyone(), evaluate=EvaluateSettings(clients="none"))
    plain = run_simulation(build(federation, task, strategy=FedAvg(weighting="uniform"), settings=settings))
    pipeline = Pipeline(stages=(Clip(norm=1e6),), weighting="uniform")
    privacy = PrivacySettings(mechanism=mechanism)
    run = run_simulation(private(federation, task, settings=settings, privacy=privacy, pipeline=pipeline))
    np.testing.assert_allclose(run.params.numpy(), plain.params.numpy(), atol=1e-6)


def test_the_rounds_noise_is_the_factorisations(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    """The variance of the whole run's noise is the one that was promised.

    280 independent squared normals (7 elements, 40 seeds): at fresh seeds this fails wrongly with a probability of
    4e-6 (chi squared with 280 degrees of freedom, off by a factor of 1.5).
    """
    mechanism, ratios = BandedNoise(bands=4, noise_multiplier=1e6), []
    for seed in range(40):
        settings = replace(TAKING_TURNS, seed=seed)
        privacy = PrivacySettings(mechanism=mechanism, delta=1e-5)
        pipeline = Pipeline(stages=(Clip(norm=1e-3),), weighting="uniform")
        settled = private(federation, task, settings=settings, privacy=privacy, pipeline=pipeline).settled_privacy
        assert settled is not None
        assert settled.factorisation is not None
        account = RunPrivacy(settled, tmp_path / f"{seed}.sqlite", run="run", simulated=True)
        noise = account._noise
        assert noise is not None
        prefix = sum((noise.of_rounds(number, number, 7) for number in range(1, 13)), np.zeros(7))
        ratios.append(np.mean(prefix**2) / settled.factorisation.prefix_variances()[-1])
    assert 1 / 1.5 < np.mean(ratios) < 1.5


def test_correlated_noise_beats_independent_noise_at_the_same_budget(
    federation: FederatedDataset, task: CallableTask
) -> None:
    """In the sum of all rounds, without sampling to amplify: DP-FTRL's point."""
    settings = RoundSettings(rounds=256, cohort=Separated(size=1, min_separation=8))

    def last(mechanism: Any) -> float:
        simulation = private(
            federation, task, settings=settings, privacy=PrivacySettings(mechanism=mechanism, budget=BUDGET)
        )
        settled = simulation.settled_privacy
        assert settled is not None
        assert settled.factorisation is not None
        return settled.noise_multiplier * float(settled.factorisation.prefix_variances()[-1]) ** 0.5

    assert last(BandedNoise(bands=8)) < 0.6 * last(BandedNoise(bands=1))


class TestLimits:
    @pytest.mark.parametrize(
        ("cohort", "rounds", "most", "separation"),
        [
            (Everyone(), 5, 5, 1),
            (Fixed(clients=("site-1",)), 5, 5, 1),
            (Cyclic(size=3), 10, 4, 2),
            (Cyclic(size=2), 8, 2, 4),
            (Separated(size=1, min_separation=3), 7, 3, 3),
        ],
    )
    def test_selectors_keep_the_limits_that_they_name(
        self, federation: FederatedDataset, task: CallableTask, cohort: Any, rounds: int, most: int, separation: int
    ) -> None:
        population = private(federation, task).population()
        limits = cohort.participation(8, rounds)
        assert (limits.most, limits.min_separation) == (most, separation)
        seen: dict[str, list[int]] = {}
        for number in range(1, rounds + 1):
            for client in cohort.select(population, number, np.random.default_rng(number)):
                seen.setdefault(client, []).append(number)
        assert max(len(numbers) for numbers in seen.values()) <= most
        assert min([b - a for n in seen.values() for a, b in itertools.pairwise(n)], default=99) >= separation

    @pytest.mark.parametrize("cohort", [Poisson(rate=0.5), Uniform(size=3)])
    def test_unbounded_participation_is_refused(
        self, federation: FederatedDataset, task: CallableTask, cohort: Any
    ) -> None:
        privacy = PrivacySettings(mechanism=TreeNoise(), budget=BUDGET)
        with pytest.raises(PrivacyError, match="unbounded participation"):
            _ = private(
                federation, task, settings=RoundSettings(rounds=6, cohort=cohort), privacy=privacy
            ).settled_privacy

    def test_a_selector_that_does_not_keep_them_ends_the_run(
        self, federation: FederatedDataset, task: CallableTask
    ) -> None:
        class Liar(Cyclic):
            def select(self, population: Any, round_number: int, rng: Any) -> tuple[str, ...]:
                return ("site-1",)

        settings = RoundSettings(rounds=6, cohort=Liar(size=1))
        privacy = PrivacySettings(mechanism=TreeNoise(), budget=BUDGET)
        with pytest.raises(PrivacyError, match="round 2: `site-1` took part 1 times"):
            run_simulation(private(federation, task, settings=settings, privacy=privacy))

    def test_too_many_bands(self, federation: FederatedDataset, task: CallableTask) -> None:
        privacy = PrivacySettings(mechanism=BandedNoise(bands=5), budget=BUDGET)
        with pytest.raises(PrivacyError, match="bands is 5; wanted a whole number from 1 to 4"):
            _ = private(federation, task, settings=TAKING_TURNS, privacy=privacy).settled_privacy

    def test_an_adaptive_clip_is_refused(self, federation: FederatedDataset, task: CallableTask) -> None:
        pipeline = Pipeline(stages=(Clip(norm=1, adaptive=True),), weighting="uniform")
        privacy = PrivacySettings(mechanism=TreeNoise(), budget=BUDGET)
        with pytest.raises(PrivacyError, match="adaptive clip"):
            _ = private(federation, task, settings=TAKING_TURNS, privacy=privacy, pipeline=pipeline).settled_privacy

    def test_noise_that_does_not_keep_the_budget(self, federation: FederatedDataset, task: CallableTask) -> None:
        privacy = PrivacySettings(mechanism=TreeNoise(noise_multiplier=0.1), budget=BUDGET)
        with pytest.raises(PrivacyBudgetError, match="the run with this noise costs"):
            _ = private(federation, task, settings=TAKING_TURNS, privacy=privacy).settled_privacy

    @pytest.mark.parametrize(
        "federation_", [FederationSettings(over_select=2), FederationSettings(stragglers="buffer")]
    )
    def test_rounds_that_change_who_takes_part_when_are_refused(self, federation_: FederationSettings) -> None:
        check_timely(PrivacySettings(mechanism=None), federation_)  # local noise is there whoever takes part
        for mechanism in (CentralGaussian(), TreeNoise()):
            with pytest.raises(PrivacyError, match="relies on who takes part when"):
                check_timely(PrivacySettings(mechanism=mechanism), federation_)


def test_in_a_federation_the_key_is_a_file_of_its_own_until_the_end(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    privacy = PrivacySettings(mechanism=TreeNoise(), budget=BUDGET)
    settled = private(federation, task, settings=TAKING_TURNS, privacy=privacy).settled_privacy
    assert settled is not None

    def account() -> RunPrivacy:
        return RunPrivacy(settled, tmp_path / LEDGER, run="run", simulated=False)

    def noise(of: RunPrivacy, number: int) -> np.ndarray:
        mechanism: Any = of.in_round(settled.pipeline, number).mechanism
        of.charge(number)
        found: np.ndarray = mechanism.noise(5)
        return found

    first, killed = account(), account()
    drawn = [noise(first, number) for number in (1, 2, 3)]
    assert np.all(drawn[2])
    killed.went_on([RoundRecord(round=1, cohort=("site-1",)), RoundRecord(round=2, cohort=("site-2",))])
    np.testing.assert_array_equal(noise(killed, 3), drawn[2])  # killed before round 3 was committed
    with pytest.raises(PrivacyError, match="put back to an older state"):
        account().charge(2)
    path = tmp_path / NOISE_KEYS / "run.json"
    entries = PrivacyLedger(tmp_path / LEDGER, scope=scope_of("run")).entries()
    assert [entry.key.round for entry in entries] == [0]
    first.ended()
    assert not path.exists()
    with pytest.raises(PrivacyError, match="the key of the run's correlated noise is not in"):
        account().charge(4)


def test_the_round_after_an_abandoned_one_has_the_noise_of_both(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    """So that what later rounds take back was there; also where the run went on in another process in between."""
    privacy = PrivacySettings(mechanism=BandedNoise(bands=4), budget=BUDGET)
    settled = private(federation, task, settings=TAKING_TURNS, privacy=privacy).settled_privacy
    assert settled is not None

    def noise(of: RunPrivacy, number: int) -> np.ndarray:
        mechanism: Any = of.in_round(settled.pipeline, number).mechanism
        of.charge(number)
        found: np.ndarray = mechanism.noise(5)
        return found

    whole = RunPrivacy(settled, tmp_path / "whole.sqlite", run="run", simulated=True)
    each = [noise(whole, number) for number in (1, 2, 3, 4)]
    gaps = RunPrivacy(settled, tmp_path / "gaps.sqlite", run="run", simulated=True)
    np.testing.assert_array_equal(noise(gaps, 1), each[0])
    np.testing.assert_allclose(noise(gaps, 3), each[1] + each[2])
    again = RunPrivacy(settled, tmp_path / "gaps.sqlite", run="run", simulated=True)
    status: list[Any] = ["finished", "abandoned", "abandoned"]
    again.went_on(RoundRecord(round=i, status=s, cohort=(f"site-{i}",)) for i, s in enumerate(status, 1))
    np.testing.assert_allclose(noise(again, 4), each[1] + each[2] + each[3])
