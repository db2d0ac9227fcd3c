"""Private runs: what is settled beforehand, what is charged when, and what is not kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.sum import Sum
from hanse.core.errors import PipelineError, PrivacyBudgetError, PrivacyError, RunError, RunInterrupted
from hanse.core.events import ClientFinished, Event, RoundFinished
from hanse.data.federated import FederatedDataset
from hanse.pipeline.clip import Clip
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.rotate import Rotate
from hanse.privacy.budget import Budget
from hanse.privacy.events import FixedSizeSampled, Gaussian, PoissonSampled
from hanse.privacy.ledger import PrivacyLedger
from hanse.rounds.history import RoundRecord
from hanse.rounds.journal import FileJournal
from hanse.rounds.privacy.run import LEDGER, RunPrivacy, scope_of
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.spending import spent_by_round
from hanse.rounds.run_folder import new_run_folder, read_run
from hanse.rounds.selection import ByExamples, Everyone, Poisson, Uniform
from hanse.rounds.settings import EvaluateSettings, RoundSettings
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import CallableTask
from tests.simulation.test_simulate import build, failing

BUDGET = Budget(epsilon=4.0, delta=1e-5)


def private(dataset: FederatedDataset, task: CallableTask, **changes: Any) -> Simulation:
    clip = Clip(norm=0.5)
    parts: dict[str, Any] = {
        "strategy": FedAvg(weighting="uniform"),
        "pipeline": Pipeline(stages=(clip,), weighting="uniform"),
        "settings": RoundSettings(rounds=6, seed=3, cohort=Poisson(rate=0.5)),
        "privacy": PrivacySettings(mechanism=CentralGaussian(), budget=BUDGET),
    }
    return build(dataset, task, **(parts | changes))


class TestSettled:
    def test_the_budget_settles_the_noise(self, federation: FederatedDataset, task: CallableTask) -> None:
        settled = private(federation, task).settled_privacy
        assert settled is not None
        planned = settled.planned()
        assert planned is not None
        assert 3.99 < planned.epsilon <= 4.0
        event = settled.event
        assert isinstance(event, PoissonSampled)
        assert event.event == Gaussian(noise_multiplier=settled.noise_multiplier)
        assert settled.pipeline.aggregator == Sum(expected=4.0)
        assert settled.curve()[-1] == (6, pytest.approx(planned.epsilon))

    @pytest.mark.parametrize(
        ("cohort", "expected", "event"),
        [
            (Everyone(), 8.0, Gaussian(noise_multiplier=2)),
            (Uniform(size=8), 8.0, Gaussian(noise_multiplier=2)),
            (Uniform(size=3), 3.0, FixedSizeSampled(sample=3, population=8, event=Gaussian(noise_multiplier=2))),
            (Poisson(rate=0.25), 2.0, PoissonSampled(rate=0.25, event=Gaussian(noise_multiplier=2))),
        ],
    )
    def test_what_a_round_releases_follows_from_the_cohort(
        self, federation: FederatedDataset, task: CallableTask, cohort: Any, expected: float, event: Any
    ) -> None:
        privacy = PrivacySettings(mechanism=CentralGaussian(noise_multiplier=2), delta=1e-5)
        settled = private(
            federation, task, privacy=privacy, settings=RoundSettings(rounds=2, cohort=cohort)
        ).settled_privacy
        assert settled is not None
        assert settled.event == event
        assert settled.pipeline.aggregator == Sum(expected=expected)

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"pipeline": Pipeline(weighting="uniform")}, PipelineError, "no stage bounds"),
            (
                {"strategy": FedAvg(), "pipeline": Pipeline(stages=(Clip(norm=1),))},
                PipelineError,
                "weighs clients by examples",
            ),
            (
                {"pipeline": Pipeline(stages=(Clip(norm=1, kind="linf"),), weighting="uniform")},
                PipelineError,
                "no bound in L2",
            ),
            ({"settings": RoundSettings(rounds=6, cohort=ByExamples(size=3))}, PrivacyError, "ByExamples gives away"),
            (
                {"settings": RoundSettings(rounds=6, evaluate=EvaluateSettings(clients="all"))},
                PrivacyError,
                "without any noise",
            ),
            (
                {"settings": RoundSettings(rounds=6, cohort=Poisson(rate=0.5), min_clients=2)},
                PrivacyError,
                "tells how many were",
            ),
            ({"privacy": PrivacySettings(mechanism=CentralGaussian())}, PrivacyError, "neither a noise_multiplier"),
            (
                {"privacy": PrivacySettings(mechanism=CentralGaussian(), budget=Budget(epsilon=1))},
                PrivacyError,
                "a budget without delta",
            ),
            (
                {"privacy": PrivacySettings(mechanism=CentralGaussian(noise_multiplier=0.5), budget=BUDGET)},
                PrivacyBudgetError,
                r"6 rounds with this noise cost ε = .*; *the budget|6 rounds with this noise cost",
            ),
            (
                {
                    "pipeline": Pipeline(stages=(Clip(norm=1, adaptive=True, bit_noise=1e-3),), weighting="uniform"),
                },
                PrivacyError,
                "bit_noise",
            ),
        ],
    )
    def test_refusals(
        self,
        federation: FederatedDataset,
        task: CallableTask,
        changes: dict[str, Any],
        error: type[Exception],
        words: str,
    ) -> None:
        with pytest.raises(error, match=words):
            _ = private(federation, task, **changes).settled_privacy


def test_without_noise_and_within_the_clip_it_is_the_uniform_mean(
    federation: FederatedDataset, task: CallableTask
) -> None:
    settings = RoundSettings(rounds=4, seed=3, cohort=Everyone(), evaluate=EvaluateSettings(clients="none"))
    plain = run_simulation(build(federation, task, strategy=FedAvg(weighting="uniform"), settings=settings))
    none = PrivacySettings(mechanism=CentralGaussian(noise_multiplier=0))
    pipeline = Pipeline(stages=(Clip(norm=1e6), Rotate()), weighting="uniform")
    run = run_simulation(private(federation, task, settings=settings, privacy=none, pipeline=pipeline))
    np.testing.assert_allclose(run.params.numpy(), plain.params.numpy(), atol=1e-6)


def test_a_round_is_charged_once_and_nothing_else_of_clients_is_kept(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    folder = new_run_folder(tmp_path, "run")
    run = run_simulation(private(federation, task), folder=folder)
    entries = PrivacyLedger(folder / LEDGER, scope=scope_of("run")).entries()
    assert [entry.key.round for entry in entries] == [1, 2, 3, 4, 5, 6]
    for record in run.history.rounds[1:]:
        assert (record.train, record.num_examples, record.clients, record.federated) == ({}, 0, (), None)
    assert all(not record.train for record in read_run(folder).history.rounds)


def test_the_same_bits_with_workers_and_after_a_stop(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    pipeline = Pipeline(stages=(Clip(norm=0.5, adaptive=True, bit_noise=2.0), Rotate()), weighting="uniform")
    simulation = private(federation, task, pipeline=pipeline)
    whole = run_simulation(simulation, folder=new_run_folder(tmp_path, "whole"))
    two = run_simulation(replace(simulation, engine=EngineSettings(workers=2)))
    folder = new_run_folder(tmp_path, "stopped")

    def interrupt(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round == 3:
            raise RunInterrupted("enough")

    with pytest.raises(RunInterrupted):
        run_simulation(simulation, folder=folder, sinks=(interrupt,))
    resumed = run_simulation(simulation, folder=folder)
    hashes = {run.params.sha256() for run in (whole, two, resumed)}
    assert len(hashes) == 1
    assert [r.stages for r in resumed.history.rounds] == [r.stages for r in whole.history.rounds]
    assert whole.history.rounds[-1].stages["0"]["norm"] != 0.5
    ledger = PrivacyLedger(folder / LEDGER, scope=scope_of("stopped"))
    assert [entry.key.round for entry in ledger.entries()] == [1, 2, 3, 4, 5, 6]
    account = spent_by_round(folder, "stopped", {"privacy": {"budget": {"epsilon": 4.0, "delta": 1e-5}}})
    assert account.by_round[6].epsilon <= 4.0


def test_a_run_killed_between_charge_and_commit_can_be_prolonged(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rounds need more noise for the same budget, so round 3 is released anew, and charged anew."""
    folder = new_run_folder(tmp_path, "killed")
    commit = FileJournal.commit

    def die(self: FileJournal, record: RoundRecord, *more: Any, **how: Any) -> None:
        if record.round == 3:
            raise RunInterrupted("killed")
        commit(self, record, *more, **how)

    with monkeypatch.context() as patched:
        patched.setattr(FileJournal, "commit", die)
        with pytest.raises(RunInterrupted):
            run_simulation(private(federation, task), folder=folder)
    longer = RoundSettings(rounds=9, seed=3, cohort=Poisson(rate=0.5))
    resumed = run_simulation(private(federation, task, settings=longer), folder=folder)
    assert resumed.history.rounds[-1].round >= 6
    entries = PrivacyLedger(folder / LEDGER, scope=scope_of("killed"), budget=BUDGET).entries()
    assert [(entry.key.round, entry.key.attempt) for entry in entries[:5]] == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0)]


def test_an_empty_cohort_releases_noise_like_any_other(federation: FederatedDataset, task: CallableTask) -> None:
    settings = RoundSettings(rounds=20, seed=3, cohort=Poisson(rate=0.1))
    run = run_simulation(private(federation, task, settings=settings))
    records = run.history.rounds[1:]
    assert any(not record.cohort for record in records)
    assert {record.status for record in records} == {"finished"}


def test_a_budget_that_is_spent_ends_the_run(federation: FederatedDataset, task: CallableTask, tmp_path: Path) -> None:
    simulation = private(federation, task)
    settled = simulation.settled_privacy
    assert settled is not None
    folder = new_run_folder(tmp_path, "run")
    lost = RunPrivacy(settled, folder / LEDGER, run="run", simulated=False)
    for _ in range(4):  # a coordinator that lost round 3 four times with fresh noise
        lost.charge(3)
    run = run_simulation(simulation, folder=folder)
    assert run.record.status == "stopped early"
    assert run.history.rounds[-1].round == 3


def test_a_run_without_its_ledger_does_not_go_on(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    simulation = private(federation, task)
    folder = new_run_folder(tmp_path, "run")
    run_simulation(simulation, folder=folder)
    (folder / LEDGER).unlink()
    longer = replace(simulation, settings=replace(simulation.settings, rounds=simulation.settings.rounds + 1))
    with pytest.raises(PrivacyError, match="has round 1, and nothing in the ledger paid for it"):
        run_simulation(longer, folder=folder)


def test_a_renamed_run_keeps_its_account(federation: FederatedDataset, task: CallableTask, tmp_path: Path) -> None:
    simulation = private(federation, task)
    folder = new_run_folder(tmp_path, "run")
    run_simulation(simulation, folder=folder)
    job = {"privacy": {"mechanism": {"use": "gaussian"}, "delta": 1e-5}}
    before = spent_by_round(folder, "run", job)
    assert before.releases == simulation.settings.rounds
    moved = folder.rename(tmp_path / "other")
    assert spent_by_round(moved, "other", job) == before
    run_simulation(simulation, folder=moved)  # finished: nothing is charged under the new name
    assert spent_by_round(moved, "other", job) == before


def test_noise_that_is_drawn_anew_is_charged_anew(
    federation: FederatedDataset, task: CallableTask, tmp_path: Path
) -> None:
    settled = private(federation, task).settled_privacy
    assert settled is not None
    for _ in range(2):
        RunPrivacy(settled, tmp_path / LEDGER, run="run", simulated=False).charge(1)
    keys = [entry.key for entry in PrivacyLedger(tmp_path / LEDGER, scope=scope_of("run")).entries()]
    assert [(key.round, key.attempt) for key in keys] == [(1, 0), (1, 1)]
    for _ in range(2):
        RunPrivacy(settled, tmp_path / "simulated.sqlite", run="run", simulated=True).charge(1)
    assert len(PrivacyLedger(tmp_path / "simulated.sqlite", scope=scope_of("run")).entries()) == 1


def test_events_tell_nothing_of_clients_data(federation: FederatedDataset, task: CallableTask) -> None:
    seen: list[Event] = []
    run_simulation(private(federation, task), sinks=(seen.append,))
    finished = [event for event in seen if isinstance(event, ClientFinished)]
    assert finished
    assert {(event.num_examples, event.seconds) for event in finished} == {(0, 0.0)}


def test_a_budget_with_an_adaptive_clip_is_settled(federation: FederatedDataset, task: CallableTask) -> None:
    # the search for z passes values that the bit's noise (2 σ_b = 1.92) would not allow
    pipeline = Pipeline(stages=(Clip(norm=1.0, adaptive=True, bit_noise=0.24),), weighting="uniform")
    budget = Budget(epsilon=7.0, delta=1e-5)
    settled = private(
        federation, task, pipeline=pipeline, privacy=PrivacySettings(mechanism=CentralGaussian(), budget=budget)
    ).settled_privacy
    assert settled is not None
    assert 1 < settled.noise_multiplier < 1.92


def test_a_round_that_nobody_answers_moves_the_clip_like_any_other(
    federation: FederatedDataset, task: CallableTask
) -> None:
    pipeline = Pipeline(stages=(Clip(norm=0.5, adaptive=True, bit_noise=30.0),), weighting="uniform")
    settings = RoundSettings(rounds=12, seed=3, cohort=Poisson(rate=0.1))
    records = run_simulation(private(federation, task, pipeline=pipeline, settings=settings)).history.rounds
    empty = [i for i, record in enumerate(records) if i and not record.cohort]
    assert empty
    assert all(records[i].stages["0"] != (records[i - 1].stages or {"0": {"norm": 0.5}})["0"] for i in empty)
    assert all("0.below" in record.measured for record in records[1:])


def test_every_client_failing_is_said_and_not_trained_on(federation: FederatedDataset, task: CallableTask) -> None:
    def broken() -> Any:
        raise ValueError("no")

    with pytest.raises(RunError, match="every client failed"):
        run_simulation(private(federation, failing(task, lambda x: True, broken)))
