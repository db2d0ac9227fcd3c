"""Runs that hide single examples: settled for the worst placed client, charged before anybody is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant

from hanse.core.errors import JobProblems, PipelineError, PrivacyBudgetError, PrivacyError, RunInterrupted, SettingError
from hanse.core.events import ClientFinished, Event, RoundFinished
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.data.federated import FederatedDataset
from hanse.data.preprocessing import Scale, Standardize
from hanse.data.split import Split
from hanse.pipeline.clip import Clip
from hanse.pipeline.correlated import BandedNoise, TreeNoise
from hanse.pipeline.dp_sgd import DPSGD
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.local_noise import LocalGaussian
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.accountant import epsilon
from hanse.privacy.audit import audit_epsilon
from hanse.privacy.budget import Budget
from hanse.privacy.events import Disjoint, Gaussian, PoissonSampled, Repeated
from hanse.privacy.ledger import ChargeKey, PrivacyLedger
from hanse.rounds.privacy.run import LEDGER, RunPrivacy, scope_of
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settle import settle_privacy
from hanse.rounds.privacy.settled import SettledPrivacy
from hanse.rounds.privacy.spending import spent_by_round
from hanse.rounds.privacy.steps import ClientSteps
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.selection import ByExamples, Cyclic, Everyone, Fixed, Poisson, Population, Selector, Separated
from hanse.rounds.settings import EvaluateSettings, RoundSettings
from hanse.simulation.checks import check_simulation
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedsgd import FedSGD
from hanse.tasks import CallableTask
from hanse.testing.fakes import linear_task
from tests.simulation.private_steps import PrivateSteps, linear_gradients, use_trainer
from tests.simulation.test_simulate import build

BUDGET = Budget(epsilon=3.0, delta=1e-5)
PROMISE = PrivacySettings(unit="example", mechanism=DPSGD(clip_norm=1.0), budget=BUDGET)
KNOWN = PrivacySettings(unit="example", mechanism=DPSGD(clip_norm=1.0, noise_multiplier=3.0), budget=BUDGET)


def settled(
    *sizes: int,
    batch_size: int = 50,
    rounds: int = 10,
    privacy: PrivacySettings = PROMISE,
    cohort: Selector | None = None,
    amplified: bool = True,
) -> SettledPrivacy:
    return settle_privacy(
        privacy,
        Pipeline(),
        RoundSettings(rounds=rounds, cohort=cohort or Everyone()),
        linear_task(),
        Population(tuple(f"site-{i}" for i in range(len(sizes))), np.array(sizes)),
        prescribed=FedAvg(local=LocalWork(batch_size=batch_size)).local_work,
        amplified=amplified,
    )


def noise_of(multiplier: float, delta: float = 1e-5) -> PrivacySettings:
    return PrivacySettings(unit="example", mechanism=DPSGD(clip_norm=1.0, noise_multiplier=multiplier), delta=delta)


def by_google(rate: float, noise: float, steps: int, delta: float) -> float:
    accountant = pld_privacy_accountant.PLDAccountant()
    step = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
    return float(accountant.compose(step, steps).get_epsilon(delta))


class TestSettled:
    @pytest.mark.parametrize(
        ("examples", "batch", "noise", "rounds", "steps", "published"),
        [
            (60_000, 256, 1.1, 60, 14_100, 2.3852),
            pytest.param(10_000, 100, 1.0, 10, 1_000, 1.8282, marks=pytest.mark.slow),
            pytest.param(500, 50, 1.0, 10, 100, 7.0466, marks=pytest.mark.slow),
        ],
    )
    def test_golden_values_through_the_job(
        self, examples: int, batch: int, noise: float, rounds: int, steps: int, published: float
    ) -> None:
        found = settled(examples, batch_size=batch, rounds=rounds, privacy=noise_of(noise))
        planned = found.planned()
        assert planned is not None
        assert planned.neighbours == "zero-out-one"
        assert planned.epsilon == pytest.approx(published, abs=1e-3)
        assert planned.epsilon >= published - 1e-4
        assert planned.epsilon == pytest.approx(by_google(batch / examples, noise, steps, 1e-5), abs=1e-3)
        assert found.curve()[-1] == (rounds, planned.epsilon)

    def test_the_budget_settles_the_noise_for_the_worst_placed_client(self) -> None:
        found = settled(100, 600, 3_000, 30)
        assert found.examples is not None
        assert (found.unit, found.local, found.examples.client) == ("example", True, "site-3")
        assert found.examples.steps == ClientSteps(num_examples=30, rate=1.0, steps=1)
        planned = found.planned()
        assert planned is not None
        assert planned.epsilon == found.examples.most
        assert 2.999 < planned.epsilon <= 3.0
        assert found.examples.least is not None
        assert found.examples.least < 1.0
        assert found.pipeline.example_privacy == ExamplePrivacy(clip_norm=1.0, noise_multiplier=found.noise_multiplier)

    def test_no_client_is_charged_less_than_it_costs_at_any_time(self) -> None:
        """Noise low enough that which client is worst changes from round to round."""
        sizes = (60, 130, 410)
        found = settled(*sizes, privacy=noise_of(0.6))
        assert isinstance(found.event, Disjoint)
        for rounds, spent in found.curve(points=2):
            for size in sizes:
                steps = -(-size // 50)
                alone = PoissonSampled(rate=50 / size, event=Gaussian(noise_multiplier=0.6))
                assert spent >= epsilon(Repeated(event=alone, count=steps * rounds), 1e-5), (rounds, size)

    def test_alike_clients_are_charged_for_one(self) -> None:
        found = settled(100, 100, 100, privacy=noise_of(1.0))
        step = PoissonSampled(rate=0.5, event=Gaussian(noise_multiplier=1.0))
        assert found.event == Repeated(event=step, count=2)
        assert settled(40, 30, privacy=noise_of(2.0)).event == Repeated(event=Gaussian(noise_multiplier=2.0), count=1)

    def test_who_is_never_asked_and_who_holds_nothing_do_not_count(self) -> None:
        alone = settled(100, privacy=noise_of(1.0))
        assert (
            settled(100, 5, 0, cohort=Fixed(clients=("site-0", "site-2")), privacy=noise_of(1.0)).event == alone.event
        )
        with pytest.raises(PrivacyError, match="holds a training example"):
            settled(100, 0, cohort=Fixed(clients=("site-1",)))

    @pytest.mark.parametrize("cohort", [Poisson(rate=0.1), ByExamples(size=1)])
    def test_no_sampling_of_clients_is_claimed(self, cohort: Selector) -> None:
        assert (
            settled(100, 200, cohort=cohort, privacy=noise_of(1.0)).event
            == settled(100, 200, privacy=noise_of(1.0)).event
        )

    def test_limits_on_who_takes_part_when_are_used_where_they_are_kept(self) -> None:
        cohort = Separated(size=1, min_separation=4)
        known = noise_of(2.0)
        everybody, limited = settled(*8 * [100], privacy=known), settled(*8 * [100], cohort=cohort, privacy=known)
        assert limited.examples is not None
        assert limited.examples.every == 4
        assert limited.planned() == settled(*8 * [100], rounds=3, privacy=known).planned()  # 10 rounds: three at most
        first, second = limited.curve()[:2]
        assert first[1] == pytest.approx(second[1])  # rounds 1 to 4 are one for everybody
        elsewhere = settled(
            *8 * [100], cohort=cohort, amplified=False, privacy=known
        )  # a coordinator asks whom it likes
        assert elsewhere.planned() == everybody.planned()
        assert (
            settled(*4 * [100], cohort=Cyclic(size=3), privacy=known).limits is None
        )  # one in two rounds may follow each other

    @pytest.mark.parametrize(
        ("privacy", "words"),
        [
            (PrivacySettings(unit="example"), 'unit = "example" and no mechanism'),
            (
                PrivacySettings(unit="example", mechanism=CentralGaussian(), budget=BUDGET),
                "CentralGaussian hides whole",
            ),
            (PrivacySettings(unit="example", mechanism=TreeNoise(), budget=BUDGET), "TreeNoise hides whole clients"),
            (PrivacySettings(unit="example", mechanism=BandedNoise(bands=2), budget=BUDGET), "BandedNoise hides whole"),
            (PrivacySettings(mechanism=DPSGD(clip_norm=1.0), budget=BUDGET), "DPSGD makes no sum of updates private"),
            (replace(PROMISE, budget=None), "neither a noise_multiplier nor a budget"),
            (replace(PROMISE, budget=Budget(epsilon=3.0)), "a budget without delta"),
        ],
    )
    def test_refusals(self, privacy: PrivacySettings, words: str) -> None:
        with pytest.raises(PrivacyError, match=words):
            settled(100, privacy=privacy)

    def test_noise_that_does_not_keep_the_budget_is_refused(self) -> None:
        with pytest.raises(PrivacyBudgetError, match="10 rounds with this noise cost") as caught:
            settled(100, 400, privacy=replace(noise_of(1.0), budget=BUDGET, delta=None))
        assert caught.value.hint is not None
        assert "it allows 0 rounds" in caught.value.hint

    def test_bad_numbers_and_an_unknown_unit_are_refused(self) -> None:
        unit: Any = "exmaple"
        with pytest.raises(SettingError, match="unit") as caught:
            PrivacySettings(unit=unit)
        assert "did you mean `example`" in str(caught.value)
        for wrong in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(SettingError, match="clip_norm"):
                DPSGD(clip_norm=wrong)
        for wrong in (-1.0, float("nan"), float("inf")):
            with pytest.raises(SettingError, match="noise_multiplier"):
                DPSGD(clip_norm=1.0, noise_multiplier=wrong)


@dataclass(frozen=True, kw_only=True)
class Growing(FedAvg):
    """More epochs each round."""

    def local_work(self, round_number: int) -> LocalWork:
        return replace(self.local, epochs=round_number)


def hidden(dataset: FederatedDataset, task: CallableTask, **changes: Any) -> Simulation:
    parts: dict[str, Any] = {
        "strategy": FedAvg(local=LocalWork(batch_size=5, optimizer=SGD(lr=0.05))),
        "pipeline": Pipeline(),
        "settings": RoundSettings(rounds=4, seed=3, cohort=Everyone()),
        "privacy": KNOWN,
    }
    return build(dataset, task, **(parts | changes))


@pytest.fixture
def trainer(task: CallableTask, monkeypatch: pytest.MonkeyPatch) -> PrivateSteps:
    made = PrivateSteps(task, linear_gradients)
    use_trainer(monkeypatch, made)
    return made


class TestWhatDoesNotGoTogether:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"pipeline": Pipeline(stages=(LocalGaussian(norm=1.0),), weighting="uniform")},
                "noise that hides clients",
            ),
            (
                {"strategy": FedSGD(), "pipeline": Pipeline(weighting=FedSGD().weighting)},
                'upload = "gradient" takes none',
            ),
            ({"strategy": FedAvg(local=LocalWork(accumulate=2))}, "accumulate = 2"),
            ({"strategy": Growing()}, "local work in round 2 has other batches"),
            (
                {"settings": RoundSettings(rounds=2, evaluate=EvaluateSettings(clients="all"))},
                "metrics on clients' own examples",
            ),
        ],
    )
    def test_refusals(
        self, federation: FederatedDataset, task: CallableTask, changes: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(PrivacyError, match=words):
            _ = hidden(federation, task, **changes).settled_privacy

    @pytest.mark.parametrize("fit", ["client", "federated"])
    def test_inputs_that_are_fitted_to_others(self, federation: FederatedDataset, task: CallableTask, fit: Any) -> None:
        fitted = replace(task, preprocess=Standardize(fit=fit))
        with pytest.raises(PrivacyError, match=r"task\.preprocess") as caught:
            _ = hidden(federation, fitted).settled_privacy
        assert "scale" in str(caught.value.hint)
        assert hidden(federation, replace(task, preprocess=Scale(divide_by=2.0))).settled_privacy is not None

    @pytest.mark.parametrize("privacy", [None, noise_of(9.0)])
    def test_steps_that_are_made_private_by_hand(
        self, federation: FederatedDataset, task: CallableTask, privacy: PrivacySettings | None
    ) -> None:
        local = LocalWork(example_privacy=ExamplePrivacy(clip_norm=1.0, noise_multiplier=1.0))
        with pytest.raises(PipelineError, match="no ledger accounts for") as caught:
            check_simulation(hidden(federation, task, strategy=FedAvg(local=local), privacy=privacy))
        assert not isinstance(caught.value, JobProblems)
        assert 'unit = "example"' in str(caught.value)

    def test_several_things_are_told_together(self, federation: FederatedDataset, task: CallableTask) -> None:
        with pytest.raises(JobProblems) as caught:
            check_simulation(
                hidden(federation, task, privacy=replace(PROMISE, budget=None), pipeline=Pipeline(weighting="uniform"))
            )
        assert len(caught.value.problems) == 2


class TestRuns:
    @pytest.mark.parametrize("pipeline", [Pipeline(), Pipeline(stages=(Clip(norm=0.5),), weighting="uniform")])
    def test_the_same_bits_with_workers_and_a_charge_a_round(
        self,
        federation: FederatedDataset,
        task: CallableTask,
        trainer: PrivateSteps,
        tmp_path: Path,
        pipeline: Pipeline,
    ) -> None:
        strategy = FedAvg(local=LocalWork(batch_size=5, optimizer=SGD(lr=0.05)), weighting=pipeline.weighting)
        simulation = hidden(federation, task, strategy=strategy, pipeline=pipeline)
        events: list[Event] = []
        folder = new_run_folder(tmp_path, "run")
        one = run_simulation(simulation, folder=folder, sinks=(events.append,))
        two = run_simulation(replace(simulation, engine=EngineSettings(workers=2)))
        assert one.params.sha256() == two.params.sha256()
        found = simulation.settled_privacy
        assert found is not None
        assert trainer.seen
        assert {work.example_privacy for work in trainer.seen} == {found.pipeline.example_privacy}
        entries = PrivacyLedger(folder / LEDGER, scope=scope_of("run")).entries()
        assert [(entry.key.round, entry.key.attempt) for entry in entries] == [(n, 0) for n in range(1, 5)]
        assert {entry.event for entry in entries} == {found.event}
        job = {
            "privacy": {"unit": "example", "mechanism": {"use": "dp_sgd"}, "budget": {"epsilon": 3.0, "delta": 1e-5}}
        }
        account = spent_by_round(folder, "run", job)
        assert (account.unit, account.local, account.releases) == ("example", False, 4)
        assert account.by_round[4].neighbours == "zero-out-one"
        assert [round(account.by_round[n].epsilon, 6) for n in (1, 4)] == [
            round(spent, 6) for n, spent in found.curve() if n in (1, 4)
        ]
        # nothing that was measured on examples without noise is told, or kept
        for record in one.history.rounds[1:]:
            assert (record.train, record.federated, record.clients) == ({}, None, ())
        assert not any(event.train for event in events if isinstance(event, RoundFinished))
        assert not any(getattr(event, "train", None) for event in events if isinstance(event, ClientFinished))

    def test_turns_are_charged_together(
        self, federation: FederatedDataset, task: CallableTask, trainer: PrivateSteps, tmp_path: Path
    ) -> None:
        settings = RoundSettings(rounds=6, seed=3, cohort=Cyclic(size=2))
        folder = new_run_folder(tmp_path, "run")
        run_simulation(hidden(federation, task, settings=settings), folder=folder)
        entries = PrivacyLedger(folder / LEDGER, scope=scope_of("run")).entries()
        assert [entry.key.round for entry in entries] == [1, 5]

    def test_a_round_without_updates_is_given_up(
        self, federation: FederatedDataset, task: CallableTask, trainer: PrivateSteps
    ) -> None:
        """Who takes part is no secret here, so nothing has to be released in its place."""
        settings = RoundSettings(rounds=8, seed=3, cohort=Poisson(rate=0.1))
        run = run_simulation(hidden(federation, task, settings=settings, privacy=noise_of(9.0)))
        empty = [record for record in run.history.rounds[1:] if not record.cohort]
        assert empty
        assert {record.status for record in empty} == {"abandoned"}

    def test_a_run_that_was_killed_goes_on_and_is_charged_once(
        self, federation: FederatedDataset, task: CallableTask, trainer: PrivateSteps, tmp_path: Path
    ) -> None:
        simulation = hidden(federation, task)
        folder = new_run_folder(tmp_path, "run")

        def stop(event: Event) -> None:
            if isinstance(event, ClientFinished) and event.round == 3:
                raise RunInterrupted("killed")

        with pytest.raises(RunInterrupted):
            run_simulation(simulation, folder=folder, sinks=(stop,))
        ledger = PrivacyLedger(folder / LEDGER, scope=scope_of("run"))
        assert [entry.key.round for entry in ledger.entries()] == [1, 2, 3]  # before anybody was asked
        resumed = run_simulation(simulation, folder=folder)
        assert resumed.params.sha256() == run_simulation(simulation).params.sha256()
        assert [entry.key.round for entry in ledger.entries()] == [1, 2, 3, 4]
        assert ledger.spent(delta=1e-5).epsilon <= 3.0

    def test_a_spent_budget_ends_the_run_before_anybody_is_asked(
        self, federation: FederatedDataset, task: CallableTask, trainer: PrivateSteps, tmp_path: Path
    ) -> None:
        simulation = hidden(federation, task)
        found = simulation.settled_privacy
        assert found is not None
        folder = new_run_folder(tmp_path, "run")
        ledger = PrivacyLedger(folder / LEDGER, scope=scope_of("run"))
        for elsewhere in (91, 92, 93):
            ledger.charge(ChargeKey(run="run", round=elsewhere), found.event)
        run = run_simulation(simulation, folder=folder)
        assert (run.record.status, run.history.rounds[-1].round) == ("stopped early", 2)
        assert len(trainer.seen) == 2
        assert len(ledger.entries()) == 5

    def test_over_a_network_another_attempt_has_the_same_bits_and_is_no_other_charge(
        self, federation: FederatedDataset, task: CallableTask, tmp_path: Path
    ) -> None:
        found = hidden(federation, task).settled_privacy
        assert found is not None
        for _ in range(2):
            RunPrivacy(found, tmp_path / LEDGER, run="run", simulated=False).admit(1, ["site-1"])
        entries = PrivacyLedger(tmp_path / LEDGER, scope=scope_of("run")).entries()
        assert [(entry.key.round, entry.key.attempt) for entry in entries] == [(1, 0)]


CANARIES = 512


def _zeros() -> dict[str, np.ndarray]:
    return {"w": np.zeros(2 * CANARIES, dtype=np.float32)}


def _train(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    return weights


def _evaluate(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"count": float(len(x)), "loss": 0.0}


def _pushes(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each example's gradient lies along a coordinate of its own, and is far too long."""
    grads = np.zeros((len(x), len(weights)))
    grads[np.arange(len(x)), x[:, 0].astype(int)] = -1000.0
    return grads


class TestAudit:
    """Canary examples, attacked through the model: each has a coordinate, with noise of its own, of the updates.

    Fixed seeds; with fresh ones, the audit of an honest run would exceed its claim with a probability of 1e-4 at most.
    """

    def attacked(self, monkeypatch: pytest.MonkeyPatch, privacy: PrivacySettings, noise: float | None = None) -> float:
        """A lower bound on ε, from a run that promises this; with other noise than it charges for, where given."""
        rows = {
            f"site-{i}": (
                np.arange(i * CANARIES // 2, (i + 1) * CANARIES // 2, dtype=np.float32)[:, None],
                np.zeros(CANARIES // 2, dtype=np.float32),
            )
            for i in range(2)
        }
        task = CallableTask(init=_zeros, train=_train, evaluate=_evaluate, name="canaries")
        trainer = PrivateSteps(task, _pushes)
        use_trainer(monkeypatch, trainer)
        if noise is not None:
            honest = trainer.train
            monkeypatch.setattr(
                trainer,
                "train",
                lambda work, *rest: honest(
                    replace(work, example_privacy=ExamplePrivacy(clip_norm=1.0, noise_multiplier=noise)), *rest
                ),
            )
        simulation = hidden(
            FederatedDataset.from_arrays(rows, split=Split(test=0)),
            task,
            strategy=FedAvg(local=LocalWork(batch_size=128, optimizer=SGD(lr=1.0))),
            privacy=privacy,
        )
        moved = run_simulation(simulation).params.numpy()
        return audit_epsilon(moved[:CANARIES], moved[CANARIES:], delta=1e-5, confidence=0.9999).epsilon

    def test_canaries_are_not_told_apart_better_than_claimed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.attacked(monkeypatch, replace(PROMISE, budget=Budget(epsilon=1.5, delta=1e-5))) <= 1.5

    def test_the_attack_finds_something(self, monkeypatch: pytest.MonkeyPatch) -> None:
        claimed = settled(CANARIES // 2, batch_size=128, rounds=4, privacy=noise_of(0.4)).planned()
        assert claimed is not None
        assert 1.0 < self.attacked(monkeypatch, noise_of(0.4)) <= claimed.epsilon

    def test_missing_noise_is_caught(self, monkeypatch: pytest.MonkeyPatch) -> None:
        claim = replace(PROMISE, budget=Budget(epsilon=1.5, delta=1e-5))
        assert self.attacked(monkeypatch, claim, noise=0.0) > 1.5
