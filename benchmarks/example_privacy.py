"""What example privacy costs: CPU seconds of a local epoch with it and without, and by Opacus, in turns.

    python -m benchmarks.example_privacy --json example_privacy.json

The same model, examples, batch size, number of steps and learning rate for all:

- plain: the resident trainer, without privacy.
- clipped: with it, and no noise.
- private: with noise.
- Opacus: its own way to the same steps, clipped and with noise, in its two modes: per-example gradients written out by
  hooks, and ghost clipping, which has norms alone and a second backward pass. Left out where Opacus is not installed.

Private batches are drawn by Poisson sampling, those of Opacus by the same draws. One thread; the best of several turns,
for others use these machines too.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is there

import argparse
import importlib.util
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.data.examples import Examples
from hanse.data.schema import DataSchema
from hanse.tasks.classification import Classification
from hanse.tasks.models.base import ModelFactory
from hanse.tasks.models.mcmahan_cnn import McMahanCNN
from hanse.tasks.models.two_nn import TwoNN
from hanse.tasks.torch_task import TorchTask
from hanse.trainers.base import LocalFailure, LocalJob
from hanse.trainers.private.batches import poisson_batches
from hanse.trainers.resident import ResidentTrainer

KEY = 77
SCHEMA = DataSchema(input_shape=(1, 28, 28), target="classes", classes=tuple("0123456789"))
MODELS: dict[str, tuple[ModelFactory, int]] = {"2NN": (TwoNN(), 6000), "CNN": (McMahanCNN(), 600)}
"""A model, and the examples of the client that trains it."""

PRIVACIES = {
    "plain": None,
    "clipped": ExamplePrivacy(clip_norm=1.0, noise_multiplier=0.0),
    "private": ExamplePrivacy(clip_norm=1.0, noise_multiplier=1.0),
}


def ours(task: TorchTask, examples: Examples, batch: int, privacy: ExamplePrivacy | None) -> Callable[[], int]:
    """An epoch by Hanse; the steps taken."""
    work = LocalWork(epochs=1, batch_size=batch, optimizer=SGD(lr=0.1), example_privacy=privacy)
    trainer, start = ResidentTrainer(task), task.init_params(1)

    def epoch() -> int:
        job = LocalJob(client="a", examples=lambda: examples, start=start, seed=3, private_key=KEY if privacy else 0)
        (result,) = trainer.train(work, 1, [job])
        if isinstance(result, LocalFailure):
            raise result.error
        return result.num_steps

    return epoch


def by_opacus(task: TorchTask, examples: Examples, batch: int, mode: str) -> Callable[[], int]:
    """An epoch by Opacus, `mode` being "hooks" or "ghost"; the steps taken."""
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    ghost = mode == "ghost"
    inner = task.module().train()
    if ghost:
        module: Any = GradSampleModuleFastGradientClipping(
            inner, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="mean"
        )
    else:
        module = GradSampleModule(inner, loss_reduction="mean")
    kind = DPOptimizerFastGradientClipping if ghost else DPOptimizer
    plain = torch.optim.SGD(module.parameters(), 0.1)
    optimizer: Any = kind(plain, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=batch)
    loss: Any = nn.CrossEntropyLoss()
    if ghost:
        loss = DPLossFastGradientClipping(module, optimizer, loss, loss_reduction="mean")
    x, y = task.tensors(examples.x, examples.y)

    def epoch() -> int:
        steps = 0
        for inputs, targets in _batches(x, y, batch):
            optimizer.zero_grad()
            loss(module(inputs), targets).backward()
            optimizer.step()
            steps += 1
        return steps

    return epoch


def _batches(x: Tensor, y: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in poisson_batches(KEY, len(x), batch, steps=-(-len(x) // batch)):
        index = torch.from_numpy(rows)
        yield x.index_select(0, index), y.index_select(0, index)


def measured(tried: dict[str, Callable[[], int]], turns: int) -> dict[str, float]:
    """Milliseconds of CPU time a step: of each the best of its turns, all taking turns."""
    best = dict.fromkeys(tried, float("inf"))
    for _ in range(turns):
        for name, epoch in tried.items():
            began = time.process_time()
            steps = epoch()
            best[name] = min(best[name], (time.process_time() - began) / steps)
    return {name: 1e3 * seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # Opacus's, of hooks and of a random generator that is no cipher
    has_opacus = importlib.util.find_spec("opacus") is not None
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    for name in told.models:
        factory, count = MODELS[name]
        task = Classification(model=factory).bind(SCHEMA)
        examples = Examples(rng.random((count, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, count))
        for batch in (size for size in told.batches if size <= count):
            tried = {key: ours(task, examples, batch, privacy) for key, privacy in PRIVACIES.items()}
            if has_opacus:
                tried |= {f"Opacus, {mode}": by_opacus(task, examples, batch, mode) for mode in ("hooks", "ghost")}
            took = measured(tried, told.turns)
            found[f"{name}, batch {batch}"] = took
            shown = "   ".join(f"{key} {ms:.2f} ms ({ms / took['plain']:.2f})" for key, ms in took.items())
            print(f"{name}, batch {batch}: {shown}", flush=True)
    if told.json:
        told.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
