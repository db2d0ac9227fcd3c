"""Runs in which clients add noise in shares: the same bits, one charge a release, and no release of too few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.cli.privacy_table import planned_lines
from hanse.core.errors import PrivacyError, RunInterrupted
from hanse.core.events import ClientFinished, Event
from hanse.core.messages import Broadcast, TrainPhase, Update
from hanse.data.federated import FederatedDataset
from hanse.pipeline.clip import Clip
from hanse.pipeline.distributed import DistributedNoise
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.local_noise import LocalGaussian
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.budget import Budget
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.kept_vectors import KeptInMemory
from hanse.rounds.privacy.client_noise import SYSTEM_NOISE, ClientNoise, SimulatedNoise
from hanse.rounds.privacy.distributed import with_shares
from hanse.rounds.privacy.run import LEDGER, scope_of
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.spending import spent_by_round
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.selection import Everyone, Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedadam import FedAdam
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask
from hanse.trainers.plain import PlainTrainer
from tests.simulation.test_privacy import private
from tests.simulation.test_simulate import failing

BUDGET = Budget(epsilon=8.0, delta=1e-5)


def shared(dataset: FederatedDataset, task: CallableTask, *, budget: Any = BUDGET, **changes: Any) -> Simulation:
    mechanism = changes.pop("mechanism", DistributedNoise())
    parts: dict[str, Any] = {
        "privacy": PrivacySettings(mechanism=mechanism, budget=budget, delta=None if budget else 1e-5),
        "settings": RoundSettings(rounds=4, seed=3, cohort=Uniform(size=5)),
    }
    return private(dataset, task, **(parts | changes))


@pytest.mark.parametrize("noise", ["discrete_gaussian", "skellam"])
def test_the_same_bits_with_workers_and_after_a_stop(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path, noise: Any
) -> None:
    simulation = shared(federation, task, mechanism=DistributedNoise(noise=noise))
    one = run_simulation(simulation)
    two = run_simulation(replace(simulation, engine=EngineSettings(workers=2)))
    folder, seen = new_run_folder(tmp_path, "stopped"), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, ClientFinished)
        if seen == 12:
            raise KeyboardInterrupt

    with pytest.raises((RunInterrupted, KeyboardInterrupt)):
        run_simulation(simulation, folder=folder, sinks=(interrupt,))
    resumed = run_simulation(simulation, folder=folder)
    assert len({run.params.sha256() for run in (one, two, resumed)}) == 1
    entries = PrivacyLedger(folder / LEDGER, scope=scope_of("stopped")).entries()
    assert [(entry.key.round, entry.key.attempt) for entry in entries] == [(1, 0), (2, 0), (3, 0), (4, 0)]
    job = {"privacy": {"mechanism": {"use": "distributed"}, "budget": {"epsilon": 8.0, "delta": 1e-5}}}
    account = spent_by_round(folder, "stopped", job)
    assert account.shares
    assert not account.local
    assert 7.9 < account.by_round[4].epsilon <= 8.0
    for record in one.history.rounds[1:]:
        assert (record.train, record.num_examples, record.federated) == ({}, 0, None)


def test_with_hardly_any_noise_it_is_the_uniform_mean(federation: FederatedDataset, task: CallableTask) -> None:
    settings = RoundSettings(rounds=3, seed=3, cohort=Everyone())
    fine = DistributedNoise(noise_multiplier=1e-3, bits=24)
    wide = Pipeline(stages=(Clip(norm=20.0),), weighting="uniform")
    run = run_simulation(shared(federation, task, mechanism=fine, settings=settings, budget=None, pipeline=wide))
    plain = run_simulation(private(federation, task, settings=settings, privacy=None, pipeline=wide))
    np.testing.assert_allclose(run.params.numpy(), plain.params.numpy(), atol=0.05)


def test_a_round_with_too_few_shares_is_abandoned_and_not_charged(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    def broken() -> Any:
        raise ValueError("a disk is full")

    lossy = failing(task, lambda x: len(x) > 30, broken)  # the two largest of eight clients never deliver
    settings = RoundSettings(rounds=3, seed=3, cohort=Everyone())
    strict = run_simulation(
        shared(federation, lossy, settings=settings), folder=(folder := new_run_folder(tmp_path, "strict"))
    )
    lost = len(strict.history.rounds[1].failures)
    assert lost
    assert {record.status for record in strict.history.rounds[1:]} == {"abandoned"}
    assert "min_clients is 8" in strict.history.rounds[1].note
    assert PrivacyLedger(folder / LEDGER, scope=scope_of("strict")).entries() == ()
    enough = DistributedNoise(max_dropout=lost / 8)
    loose = run_simulation(shared(federation, lossy, settings=settings, mechanism=enough))
    assert {record.status for record in loose.history.rounds[1:]} == {"finished"}
    short = DistributedNoise(max_dropout=(lost - 1) / 8)
    again = run_simulation(shared(federation, lossy, settings=settings, mechanism=short))
    assert {record.status for record in again.history.rounds[1:]} == {"abandoned"}


def test_adam_at_the_server_may_take_its_noise_off(federation: FederatedDataset, task: CallableTask) -> None:
    """What the aggregate says of its noise comes through the whole pipeline: central, in shares, and none."""
    strategy = FedAdam(lr=0.05, weighting="uniform", noise_corrected=True)
    for mechanism in (DistributedNoise(), CentralGaussian()):
        simulation = shared(federation, task, mechanism=mechanism, strategy=strategy)
        corrected = run_simulation(simulation)
        plain = run_simulation(replace(simulation, strategy=replace(strategy, noise_corrected=False)))
        assert corrected.params.sha256() != plain.params.sha256()
    free = private(federation, task, strategy=strategy, privacy=None)
    plain = run_simulation(replace(free, strategy=replace(strategy, noise_corrected=False)))
    assert run_simulation(free).params.sha256() == plain.params.sha256()


def test_it_is_said_towards_whom_it_holds(federation: FederatedDataset, task: CallableTask) -> None:
    settled = shared(federation, task).settled_privacy
    assert settled is not None
    told = dict(planned_lines(settled))
    assert "in shares of clients, 5 of 5 of them sure" in told["noise"]
    assert "towards whoever sees sums alone; not towards the server" in told["privacy"]


@pytest.mark.parametrize(
    ("stages", "mechanism", "words"),
    [
        ((LocalGaussian(norm=1, noise_multiplier=1),), DistributedNoise(), "leave one of them out"),
        ((Clip(norm=1, adaptive=True),), DistributedNoise(), "adaptive clip"),
    ],
)
def test_refusals(federation: FederatedDataset, task: CallableTask, stages: Any, mechanism: Any, words: str) -> None:
    with pytest.raises(PrivacyError, match=words) as caught:
        _ = shared(
            federation, task, pipeline=Pipeline(stages=stages, weighting="uniform"), mechanism=mechanism
        ).settled_privacy
    assert words in f"{caught.value.message} {caught.value.hint}"


def replies(dataset: FederatedDataset, task: CallableTask, noise: ClientNoise) -> list[np.ndarray]:
    """What one client sends in one round, from two runtimes with the same seed, as a site settles it."""
    privacy = PrivacySettings(mechanism=DistributedNoise(), budget=BUDGET)
    settings = RoundSettings(rounds=4, seed=7, cohort=Uniform(size=5))
    pipeline = with_shares(privacy, Pipeline(stages=(Clip(norm=0.5),), weighting="uniform"), settings, task)
    phase = TrainPhase(round=1, broadcast=Broadcast(params=task.init_params(7)), work=FedAvg().local_work(1), cohort=5)
    found = []
    for _ in range(2):
        runtime = ClientRuntime(dataset, task, PlainTrainer(task), pipeline, seed=7, kept=KeptInMemory(), noise=noise)
        (reply,) = runtime.answer(phase, ["site-1"])
        assert isinstance(reply, Update)
        assert (reply.num_examples, dict(reply.sums)) == (1, {})
        found.append(reply.delta.numpy())
    return found


def test_noise_comes_from_the_seed_in_simulations_alone(federation: FederatedDataset, task: CallableTask) -> None:
    first, again = replies(federation, task, SimulatedNoise(7))
    np.testing.assert_array_equal(first, again)
    first, again = replies(federation, task, SYSTEM_NOISE)
    assert not np.any(first == again)


def test_a_site_without_such_a_mechanism_keeps_its_pipeline(task: CallableTask) -> None:
    privacy = PrivacySettings(mechanism=CentralGaussian(), budget=BUDGET)
    pipeline = Pipeline(stages=(Clip(norm=0.5),), weighting="uniform")
    assert with_shares(privacy, pipeline, RoundSettings(rounds=4, cohort=Uniform(size=5)), task) is pipeline
