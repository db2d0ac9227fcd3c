"""Runs in which clients add the noise: settled by the budget, charged before they are asked, drawn where it must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import PrivacyBudgetError, PrivacyError
from hanse.core.messages import Broadcast, TrainPhase, Update
from hanse.data.federated import FederatedDataset
from hanse.pipeline.clip import Clip
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.local_noise import LocalGaussian, LocalLaplace
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sparsify import TopK
from hanse.privacy.budget import Budget
from hanse.privacy.events import Gaussian, LocalEpsilon
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.kept_vectors import KeptInMemory
from hanse.rounds.privacy.client_noise import SYSTEM_NOISE, ClientNoise, SimulatedNoise
from hanse.rounds.privacy.run import LEDGER, scope_of
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.spending import spent_by_round
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask
from hanse.trainers.plain import PlainTrainer
from tests.simulation.test_privacy import private

GAUSSIAN, LAPLACE = LocalGaussian(norm=0.5), LocalLaplace(norm=0.5)


def local(dataset: FederatedDataset, task: CallableTask, *stages: Any, **changes: Any) -> Simulation:
    parts: dict[str, Any] = {
        "pipeline": Pipeline(stages=stages, weighting="uniform"),
        "privacy": PrivacySettings(budget=Budget(epsilon=8.0, delta=1e-5)),
        "settings": RoundSettings(rounds=4, seed=3, cohort=Uniform(size=3)),
    }
    return private(dataset, task, **(parts | changes))


def test_the_budget_settles_the_noise_without_amplification(federation: FederatedDataset, task: CallableTask) -> None:
    settled = local(federation, task, GAUSSIAN).settled_privacy
    assert settled is not None
    planned = settled.planned()
    assert planned is not None
    assert 7.99 < planned.epsilon <= 8.0
    assert settled.event == Gaussian(noise_multiplier=settled.noise_multiplier / 2)
    pure = PrivacySettings(budget=Budget(epsilon=8.0))
    settled = local(federation, task, LAPLACE, privacy=pure).settled_privacy
    assert settled is not None
    assert isinstance(settled.event, LocalEpsilon)
    assert settled.event.epsilon == pytest.approx(2.0, rel=1e-3)  # four rounds share 8, whoever is asked
    assert settled.curve()[-1] == (4, pytest.approx(8.0, rel=1e-3))


@pytest.mark.parametrize("stages", [(GAUSSIAN, Quantize(bits=8)), (Clip(norm=3), Rotate(), LAPLACE)])
def test_the_same_bits_with_workers_and_a_charge_a_round(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path, stages: tuple[Any, ...]
) -> None:
    simulation = local(federation, task, *stages)
    folder = new_run_folder(tmp_path, "run")
    one = run_simulation(simulation, folder=folder)
    two = run_simulation(replace(simulation, engine=EngineSettings(workers=2)))
    assert one.params.sha256() == two.params.sha256()
    entries = PrivacyLedger(folder / LEDGER, scope=scope_of("run")).entries()
    assert [entry.key.round for entry in entries] == [1, 2, 3, 4]
    account = spent_by_round(folder, "run", {"privacy": {"budget": {"epsilon": 8.0, "delta": 1e-5}}})
    assert account.local
    assert account.by_round[4].epsilon <= 8.0
    for record in one.history.rounds[1:]:
        assert (record.train, record.num_examples, record.federated) == ({}, 0, None)


def test_no_noise_and_a_wide_norm_change_nothing(federation: FederatedDataset, task: CallableTask) -> None:
    silent = LocalGaussian(norm=1e6, noise_multiplier=0)
    run = run_simulation(local(federation, task, silent, privacy=PrivacySettings(delta=1e-5)))
    plain = run_simulation(local(federation, task, privacy=None))
    np.testing.assert_allclose(run.params.numpy(), plain.params.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("stages", "privacy", "words"),
    [
        ((), PrivacySettings(delta=1e-5), "no mechanism, and no stages"),
        ((GAUSSIAN, GAUSSIAN), PrivacySettings(delta=1e-5), "no mechanism, and 2 stages"),
        ((GAUSSIAN,), PrivacySettings(delta=1e-5), "neither a budget nor noise"),
        ((GAUSSIAN,), PrivacySettings(budget=Budget(epsilon=2)), "a budget without delta"),
        ((TopK(share=0.5), GAUSSIAN), PrivacySettings(budget=Budget(epsilon=2, delta=1e-5)), "`TopK` stands left"),
        (
            (Clip(norm=1, adaptive=True), GAUSSIAN),
            PrivacySettings(budget=Budget(epsilon=2, delta=1e-5)),
            "`Clip` stands left",
        ),
        (
            (Clip(norm=1), GAUSSIAN),
            PrivacySettings(mechanism=CentralGaussian(), budget=Budget(epsilon=2, delta=1e-5)),
            "leave one of them out",
        ),
    ],
)
def test_refusals(
    federation: FederatedDataset, task: CallableTask, stages: tuple[Any, ...], privacy: PrivacySettings, words: str
) -> None:
    with pytest.raises(PrivacyError, match=words) as caught:
        _ = local(federation, task, *stages, privacy=privacy).settled_privacy
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_noise_that_does_not_keep_the_budget_is_refused(federation: FederatedDataset, task: CallableTask) -> None:
    with pytest.raises(PrivacyBudgetError, match="4 rounds with this noise cost"):
        _ = local(
            federation, task, LocalLaplace(norm=1, epsilon=1), privacy=PrivacySettings(budget=Budget(epsilon=3.5))
        ).settled_privacy


def reports(dataset: FederatedDataset, task: CallableTask, noise: ClientNoise) -> list[np.ndarray]:
    """One client's report of one round, from two runtimes with the same seed."""
    pipeline = Pipeline(stages=(LocalGaussian(norm=0.5, noise_multiplier=1.0),), weighting="uniform")
    phase = TrainPhase(round=1, broadcast=Broadcast(params=task.init_params(7)), work=FedAvg().local_work(1), cohort=1)
    found = []
    for _ in range(2):
        runtime = ClientRuntime(dataset, task, PlainTrainer(task), pipeline, seed=7, kept=KeptInMemory(), noise=noise)
        (reply,) = runtime.answer(phase, ["site-1"])
        assert isinstance(reply, Update)
        found.append(reply.delta.numpy())
    return found


def test_noise_comes_from_the_seed_in_simulations_alone(federation: FederatedDataset, task: CallableTask) -> None:
    first, again = reports(federation, task, SimulatedNoise(7))
    np.testing.assert_array_equal(first, again)
    first, again = reports(federation, task, SYSTEM_NOISE)
    assert not np.any(first == again)
