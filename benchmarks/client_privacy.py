"""What hiding whole clients costs in accuracy: MNIST by 1,000 clients or by its writers, with privacy and without.

    python -m benchmarks.client_privacy --json client_privacy.json          # on the test set, three seeds
    python -m benchmarks.client_privacy --tune --norms 1,2,4 --lrs 0.3,1    # on examples kept back from training

Client-level (ε, δ = 1e-4) by Gaussian noise on the sum of clipped updates, everybody in every round, so no secrecy of
who takes part is relied on. A client is 60 examples drawn at random, or a writer (539, some 111 examples each).
Settings are chosen on 5,000 training examples that nobody trains on, the private run's and the other's each for
itself; the test set is measured for what was chosen alone. The choice itself is not part of ε, as is usual in
published figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DELTA = 1e-4
_KEPT_BACK = 5_000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is chosen: one hidden layer's width, rounds, local epochs, learning rate and, where ε is given, the norm."""

    hidden: int = 32
    rounds: int = 100
    epochs: int = 5
    lr: float = 0.3
    norm: float = 2.0
    epsilon: float | None = 4.0


CHOSEN = {
    "clients": {"private": Setting(norm=1.5), "plain": Setting(epsilon=None)},
    "writers": {"private": Setting(norm=1.5), "plain": Setting(epsilon=None)},
}


def federation(who: str, seed: int, *, tune: bool) -> Any:
    """MNIST by clients, and who tests."""
    from hanse.data.catalogue import load_set
    from hanse.data.federated import FederatedDataset
    from hanse.data.partition.iid import IID
    from hanse.data.partition.natural import Natural

    whole = load_set("mnist", data_dir=os.environ["HANSE_DATA"])
    if tune:
        trained = len(whole.train) - _KEPT_BACK
        whole = dataclasses.replace(
            whole,
            train=whole.train.take(slice(trained)),
            test=whole.train.take(slice(trained, None)),
            groups={name: labels[:trained] for name, labels in whole.groups.items()},
            test_groups={},
        )
    elif who == "writers":
        whole = dataclasses.replace(whole, test_groups={})  # the test set's writers are others
    scheme = Natural(column="writer") if who == "writers" else IID(clients=1000)
    return FederatedDataset.partition(whole, scheme(whole, seed))


def measure(who: str, setting: Setting, seed: int, *, tune: bool) -> dict[str, float]:
    """One run: accuracy at its end, noise multiplier, CPU seconds."""
    from hanse.core.local_work import LocalWork
    from hanse.core.optimizers import SGD
    from hanse.data.schema import DataSchema
    from hanse.pipeline.clip import Clip
    from hanse.pipeline.gaussian import CentralGaussian
    from hanse.pipeline.pipeline import Pipeline
    from hanse.privacy.budget import Budget
    from hanse.rounds.privacy.settings import PrivacySettings
    from hanse.rounds.settings import EvaluateSettings, RoundSettings
    from hanse.simulation.engine import EngineSettings
    from hanse.simulation.parts import Simulation
    from hanse.simulation.simulate import run_simulation
    from hanse.strategies.fedavg import FedAvg
    from hanse.tasks import MLP, Classification
    from hanse.trainers.auto import TrainerSettings

    dataset = federation(who, seed, tune=tune)
    private = setting.epsilon is not None
    local = LocalWork(epochs=setting.epochs, batch_size=10, optimizer=SGD(lr=setting.lr))
    simulation = Simulation(
        dataset=dataset,
        task=Classification(model=MLP(hidden=(setting.hidden,), activation="tanh")).bind(DataSchema.of(dataset)),
        strategy=FedAvg(local=local, weighting="uniform"),
        pipeline=Pipeline(stages=(Clip(norm=setting.norm),) if private else (), weighting="uniform"),
        settings=RoundSettings(
            rounds=setting.rounds,
            seed=seed,
            evaluate=EvaluateSettings(every=setting.rounds, clients="none", initial=False),
        ),
        privacy=PrivacySettings(mechanism=CentralGaussian(), budget=Budget(epsilon=setting.epsilon, delta=DELTA))
        if setting.epsilon is not None
        else None,
        engine=EngineSettings(trainer=TrainerSettings(use="auto")),
    )
    settled = simulation.settled_privacy
    began = time.process_time()
    history = run_simulation(simulation).history
    return {
        "accuracy": list(history.series("accuracy").values())[-1],
        "clients": len(dataset.clients),
        "noise_multiplier": 0.0 if settled is None else settled.noise_multiplier,
        "cpu": time.process_time() - began,
    }


def report(who: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The chosen settings on the test set."""
    found = []
    for name, setting in CHOSEN[who].items():
        runs = [measure(who, setting, seed, tune=False) for seed in seeds]
        accuracies = [run["accuracy"] for run in runs]
        found.append({"who": who, "run": name, **dataclasses.asdict(setting), "accuracies": accuracies, **runs[-1]})
        shown = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
        print(
            f"{who} ({runs[-1]['clients']}), {name}: {shown} %, mean {100 * sum(accuracies) / len(runs):.2f} %",
            flush=True,
        )
    return found


def tune(who: str, told: argparse.Namespace) -> list[dict[str, Any]]:
    """Every combination, on examples that were kept back, one seed."""
    found = []
    grid = itertools.product(told.hidden, told.rounds, told.epochs, told.lrs, [None] if told.plain else told.norms)
    for hidden, rounds, epochs, lr, norm in grid:
        setting = Setting(
            hidden=int(hidden),
            rounds=int(rounds),
            epochs=int(epochs),
            lr=lr,
            norm=norm or 1.0,
            epsilon=None if told.plain else 4.0,
        )
        run = measure(who, setting, 1, tune=True)
        print(setting, {name: round(value, 4) for name, value in run.items()}, flush=True)
        found.append({"who": who, **dataclasses.asdict(setting), **run})
    return found


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--who", choices=["clients", "writers", "both"], default="both")
    parser.add_argument("--seeds", type=numbers, default=[7.0, 8.0, 9.0])
    parser.add_argument("--tune", action="store_true", help="the grid below, on examples kept back from training")
    parser.add_argument("--plain", action="store_true", help="tune the run without privacy")
    parser.add_argument("--hidden", type=numbers, default=[32.0])
    parser.add_argument("--rounds", type=numbers, default=[40.0])
    parser.add_argument("--epochs", type=numbers, default=[5.0])
    parser.add_argument("--lrs", type=numbers, default=[0.5])
    parser.add_argument("--norms", type=numbers, default=[2.0])
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    found = []
    for who in ["clients", "writers"] if told.who == "both" else [told.who]:
        found += tune(who, told) if told.tune else report(who, [int(seed) for seed in told.seeds])
    if told.json:
        told.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
