"""Robust accuracy in whole simulated runs, and what adversarial training makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hanse.cli.main import app
from hanse.core.adversarial import FGSM, PGD, Perturbation
from hanse.core.errors import HanseError, SettingError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.data.sets.bundled import digits
from hanse.data.split import Split
from hanse.federation.client.policy import _gradients
from hanse.jobs.job import job_from_values
from hanse.jobs.parts import build_parts
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.checks import check_no_test_set
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.settings import EvaluateSettings, RoundSettings
from hanse.simulation.checks import check_simulation
from hanse.simulation.clock.devices import examples_worked
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedper import FedPer
from hanse.strategies.ifca import IFCA
from hanse.tasks import MLP, Classification, Linear

LOCAL = LocalWork(epochs=2, batch_size=20, optimizer=SGD(lr=0.2))
ATTACK = PGD(radius=0.1, steps=5, low=0.0, high=1.0)


def federation(*, test: bool = True, per_client: int = 150) -> FederatedDataset:
    """Digits, flattened to tables, at four clients and the server."""
    found = digits().train
    order = np.random.default_rng(0).permutation(len(found))
    x, y = found.x[order].reshape(len(found), -1), found.y[order]
    rows = {f"site-{i}": slice(300 + i * per_client, 300 + (i + 1) * per_client) for i in range(4)}
    return FederatedDataset.from_arrays(
        {name: (x[own], y[own]) for name, own in rows.items()},
        split=Split(),
        seed=1,
        central_test=Examples(x[:300], y[:300]) if test else None,
    )


def simulation(
    adversarial: Perturbation | None = None, robust: Perturbation | None = ATTACK, *, rounds: int = 1, **others: Any
) -> Simulation:
    dataset = others.pop("dataset", None) or federation()
    found = Simulation(
        dataset=dataset,
        task=bind_task(Classification(model=MLP(hidden=(32,)), preprocess=None), dataset),
        strategy=FedAvg(local=replace(LOCAL, adversarial=adversarial)),
        pipeline=Pipeline(),
        settings=RoundSettings(
            rounds=rounds, seed=2, evaluate=EvaluateSettings(every=rounds, initial=False, robust=robust)
        ),
    )
    return replace(found, **others)


def last(given: Simulation) -> dict[str, float]:
    metrics = run_simulation(given).history.rounds[-1].central
    assert metrics is not None
    return dict(metrics)


def test_adversarial_training_raises_robust_accuracy() -> None:
    within, local = {"radius": 0.15, "low": 0.0, "high": 1.0}, replace(LOCAL, epochs=5, optimizer=SGD(lr=0.3))
    plain, trained = (
        last(simulation(robust=PGD(steps=5, **within), rounds=4, strategy=FedAvg(local=replace(local, adversarial=a))))
        for a in (None, FGSM(**within))
    )
    for metrics in (plain, trained):
        assert metrics["robust_accuracy"] <= metrics["accuracy"]
        assert metrics["robust_loss"] > metrics["loss"]
    assert trained["accuracy"] > 0.8
    assert trained["robust_accuracy"] > plain["robust_accuracy"] + 0.08


def test_it_is_measured_beside_the_rest_and_changes_nothing() -> None:
    with_it, without = last(simulation()), last(simulation(robust=None))
    assert set(with_it) - set(without) == {"robust_accuracy", "robust_loss"}
    assert {name: with_it[name] for name in without} == without
    exact = last(simulation(robust=FGSM(radius=0.0)))
    assert exact["robust_accuracy"] == exact["accuracy"]
    assert exact["robust_loss"] == pytest.approx(exact["loss"], rel=1e-6)


def test_workers_play_no_part() -> None:
    given = simulation(PGD(radius=0.1, steps=2, share=0.5))
    alone = run_simulation(given)
    together = run_simulation(replace(given, engine=EngineSettings(workers=2)))
    assert np.array_equal(alone.params.numpy(), together.params.numpy())
    assert alone.history.rounds[-1].central == together.history.rounds[-1].central


def test_of_several_models_each_is_measured() -> None:
    record = run_simulation(simulation(strategy=IFCA(clusters=2, local=LOCAL))).history.rounds[-1]
    each = [metrics["robust_accuracy"] for metrics in record.central_by_group.values()]
    assert len(each) == 2
    assert record.central is not None
    assert record.central["robust_accuracy"] == pytest.approx(sum(each) / 2)


def test_hanse_show_tells_it(tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path, "moved")
    run_simulation(simulation(), folder=folder)
    found = CliRunner().invoke(app, ["show", str(folder), "--json"])
    assert found.exit_code == 0, found.output
    assert "robust_accuracy" in json.dumps(json.loads(found.output))
    assert "robust accuracy" in CliRunner().invoke(app, ["show", str(folder)]).output


class TestChecks:
    def test_no_test_set(self) -> None:
        with pytest.raises(SettingError, match=r"evaluate.robust: is measured on the server's own test set, and these"):
            check_simulation(simulation(dataset=federation(test=False)))
        check_simulation(simulation(robust=None, dataset=federation(test=False)))

    def test_tensors_that_stay_with_clients(self) -> None:
        with pytest.raises(SettingError, match="with FedPer clients keep a part of theirs"):
            check_simulation(simulation(strategy=FedPer(local=LOCAL, personal=("head.*",))))

    def test_a_task_that_trains_by_itself(self, task: Any) -> None:
        found = simulation(task=task)
        with pytest.raises(HanseError, match="robust accuracy needs the gradients of a torch module"):
            check_simulation(found)

    def test_a_coordinator_has_no_examples(self) -> None:
        with pytest.raises(SettingError, match="a coordinator has no examples"):
            check_no_test_set(EvaluateSettings(robust=ATTACK))
        check_no_test_set(EvaluateSettings())

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"central": False, "robust": ATTACK}, "central = false measures none"),
            ({"robust": FGSM(radius=0.1, share=0.5)}, "its share must be 1, got 0.5"),
        ],
    )
    def test_settings(self, values: dict[str, Any], words: str) -> None:
        with pytest.raises(SettingError, match=f"robust: .*{words}"):
            EvaluateSettings(**values)


def test_a_job_names_it_by_use() -> None:
    attack = {"use": "pgd", "radius": 0.1, "step": 0.025, "steps": 7}
    parts = build_parts(
        job_from_values(
            {
                "rounds": 1,
                "data": {"use": "mnist", "partition": {"use": "iid", "clients": 3}},
                "task": "logistic_regression",
                "strategy": {"use": "fedavg", "local": {"adversarial": {**attack, "share": 0.5}}},
                "evaluate": {"robust": attack},
            }
        )
    )
    assert parts.settings.evaluate.robust == PGD(radius=0.1, step=0.025, steps=7)
    assert parts.strategy.local_work(1).adversarial == PGD(radius=0.1, step=0.025, steps=7, share=0.5)
    assert build_parts(job_from_values(dict(parts.table))).table == parts.table


def test_a_gradient_of_an_example_counts_against_a_sites_bounds_and_on_the_clock() -> None:
    work = replace(LOCAL, adversarial=PGD(radius=0.1, steps=3))
    assert _gradients(work) == 4
    assert _gradients(LOCAL) == 1
    assert examples_worked(work, 25) == 4 * examples_worked(LOCAL, 25)


def test_a_linear_model_learns_smaller_weights_where_it_must_withstand() -> None:
    """FGSM on a linear model is a penalty of ε ‖w‖₁ inside of the loss (Goodfellow 2015, section 5)."""
    dataset = federation()
    task = bind_task(Classification(model=Linear(), preprocess=None), dataset)
    sizes = [
        np.abs(run_simulation(simulation(attack, None, rounds=3, task=task)).params.numpy()).sum()
        for attack in (None, FGSM(radius=0.1))
    ]
    assert sizes[1] < 0.9 * sizes[0]
