"""DP-SGD on MNIST: accuracy at ε ≤ 3, δ = 1e-5 for single examples, beside the same work without privacy.

    HANSE_DATA=… python -m benchmarks.dp_sgd_mnist --model cnn --json dp_sgd.json

One client holds all 60,000 training images, or several hold equal parts; each takes a round's local steps with
`ExamplePrivacy`, and the model that is measured is that of the last round. Nothing is chosen by the test set within a
run. The noise is the smallest that keeps the budget over all steps; an example is with one client, so that what one
client releases is what it costs. The runs without privacy have the same model, batches of the same length, steps,
optimiser and learning rate, and neither clip nor noise.

The small CNN with tanh is that of the paper below, made for private training.

References:
  Papernot, Thakurta, Song, Chien, Erlingsson 2021, "Tempered sigmoid activations for deep learning with differential
  privacy", arXiv:2007.14191.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is there

import argparse
import json
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.data.federated import FederatedDataset
from hanse.data.partition import IID
from hanse.data.schema import DataSchema
from hanse.data.sets.mnist import mnist
from hanse.privacy.budget import Budget
from hanse.privacy.calibration import Calibration, noise_for_budget
from hanse.privacy.events import Gaussian, PoissonSampled, Repeated
from hanse.simulation.simulate import simulate
from hanse.strategies.fedavg import FedAvg
from hanse.tasks.classification import Classification
from hanse.tasks.models.base import AsImages, ImageShape, ModelFactory, num_outputs
from hanse.tasks.models.two_nn import TwoNN


@dataclass(frozen=True, kw_only=True)
class TanhCNN:
    """Two convolutions (16 of 8×8, 32 of 4×4, stride 2) with tanh and pooling, 32 units: 26,010 parameters."""

    def build(self, schema: DataSchema) -> nn.Module:
        """The module."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            images=AsImages(ImageShape.of(schema, "this CNN"), len(schema.input_shape)),
            conv1=nn.Conv2d(1, 16, 8, stride=2, padding=3),
            tanh1=nn.Tanh(),
            pool1=nn.MaxPool2d(2, stride=1),
            conv2=nn.Conv2d(16, 32, 4, stride=2),
            tanh2=nn.Tanh(),
            pool2=nn.MaxPool2d(2, stride=1),
            flatten=nn.Flatten(),
            dense=nn.Linear(512, 32),
            tanh3=nn.Tanh(),
            head=nn.Linear(32, num_outputs(schema)),
        )
        return nn.Sequential(layers)


NUM_EXAMPLES = 60_000
MODELS: dict[str, ModelFactory] = {"cnn": TanhCNN(), "2nn": TwoNN()}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run."""

    model: str
    epsilon: float | None
    noise_multiplier: float | None
    seed: int
    accuracy: float
    steps: int
    cpu_seconds: float


def calibrated(work: LocalWork, num_examples: int, rounds: int, budget: Budget) -> Calibration:
    """The smallest noise with which all of a client's steps keep the budget."""
    rate = min(1.0, work.batch_length(num_examples) / num_examples)
    steps = rounds * work.num_steps(num_examples)

    def plan(noise: float) -> Repeated:
        return Repeated(event=PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=noise)), count=steps)

    return noise_for_budget(plan, budget)


def local_work(told: argparse.Namespace) -> LocalWork:
    """What a client does in a round, without privacy."""
    return LocalWork(epochs=1, batch_size=told.batch_size, optimizer=SGD(lr=told.lr, momentum=told.momentum))


def run(told: argparse.Namespace, seed: int, found: Calibration | None) -> Result:
    """One run, private where there is a noise for it."""
    images = mnist()
    data = FederatedDataset.partition(images, IID(clients=told.clients)(images, seed), seed=seed)
    privacy = None
    if found is not None:
        privacy = ExamplePrivacy(clip_norm=told.clip_norm, noise_multiplier=found.noise_multiplier)
    work = replace(local_work(told), example_privacy=privacy)
    began = time.process_time()
    task = Classification(model=MODELS[told.model])
    done = simulate(data, task, FedAvg(local=work, weighting="uniform"), rounds=told.rounds, seed=seed)
    spent = time.process_time() - began
    *_, accuracy = done.history.series("accuracy").values()
    return Result(
        model=told.model,
        epsilon=None if found is None else found.spent.epsilon,
        noise_multiplier=None if found is None else found.noise_multiplier,
        seed=seed,
        accuracy=accuracy,
        steps=told.rounds * work.num_steps(NUM_EXAMPLES // told.clients),
        cpu_seconds=spent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="cnn")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10, help="of one local epoch each")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=8.0)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--clip-norm", type=float, default=0.1)
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True, help="run without privacy too")
    parser.add_argument("--plain-lr", type=float, default=0.2, help="learning rate of the runs without privacy")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    budget = Budget(epsilon=told.epsilon, delta=told.delta)
    found = calibrated(local_work(told), NUM_EXAMPLES // told.clients, told.rounds, budget)
    results = []
    for seed in told.seeds:
        results.append(run(told, seed, found))
        if told.plain:
            plain = argparse.Namespace(**{**vars(told), "lr": told.plain_lr})
            results.append(run(plain, seed, None))
        for result in results[-2 if told.plain else -1 :]:
            private = (
                f"eps {result.epsilon:.3f}, noise {result.noise_multiplier:.3f}" if result.epsilon else "no privacy"
            )
            print(
                f"{result.model}, seed {result.seed}, {result.steps} steps, {private}: accuracy {result.accuracy:.4f} "
                f"({result.cpu_seconds:.0f} CPU seconds)",
                flush=True,
            )
    if told.json:
        settings = {name: value for name, value in vars(told).items() if name != "json"}
        told.json.write_text(json.dumps({"settings": settings, "results": [asdict(r) for r in results]}, indent=2))


if __name__ == "__main__":
    main()
