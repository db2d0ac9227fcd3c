"""DP-SGD by hand in NumPy: a trainer for tests of whole runs, apart from those that Hanse has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from hanse.core.local_work import LocalWork
from hanse.core.messages import Sums
from hanse.core.params import Params
from hanse.data.examples import Examples
from hanse.rounds.privacy.client_noise import generator
from hanse.trainers.base import Key, LocalFailure, LocalJob, LocalResult

Gradients = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Weights `[P]`, inputs and targets of n examples to their gradients `[n, P]`."""


class PrivateSteps:
    """Local steps as `ExamplePrivacy` says; `seen` has the work of each round.

    Args:
      task: Measures models.
      gradients: Of each example.
    """

    def __init__(self, task: Any, gradients: Gradients) -> None:
        self._task = task
        self._gradients = gradients
        self.seen: list[LocalWork] = []

    def check(self, work: LocalWork) -> None:
        """All work will do."""

    def train(
        self, work: LocalWork, round_number: int, jobs: Iterable[LocalJob]
    ) -> Iterator[LocalResult | LocalFailure]:
        self.seen.append(work)
        for job in jobs:
            read = job.examples()
            before = job.start.numpy().astype(np.float64)
            steps = work.num_steps(len(read))
            after = self._after(work, before, read, steps, job, work.lr(round_number))
            yield LocalResult(
                client=job.client,
                delta=job.start.with_vector((after - before).astype(job.start.spec.dtype)),
                num_examples=len(read),
                num_steps=steps,
                sums={"count": float(len(read)), "loss": 7.0},
                seconds=1.0,
            )

    def evaluate(self, params: Params, key: Key, examples: Callable[[], Examples]) -> Sums:
        read = examples()
        found: Sums = self._task.evaluate_plain(params, read.x, read.y)
        return found

    def _after(
        self, work: LocalWork, weights: np.ndarray, read: Examples, steps: int, job: LocalJob, lr: float
    ) -> np.ndarray:
        hidden = work.example_privacy
        assert hidden is not None
        rng, batch = generator(job.private_key), work.batch_length(len(read))
        for _ in range(steps):
            drawn = rng.random(len(read)) < batch / len(read)
            grads = self._gradients(weights, read.x[drawn], read.y[drawn]).astype(np.float64)
            norms = np.linalg.norm(grads, axis=1, keepdims=True)
            total = (grads * np.minimum(1.0, hidden.clip_norm / np.maximum(norms, 1e-12))).sum(axis=0)
            total += rng.normal(scale=hidden.noise_multiplier * hidden.clip_norm, size=total.shape)
            weights = weights - lr * total / batch
        return weights


def linear_gradients(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of half the squared error of `x · w + b`, the weights being w and then b, or as they are named."""
    inputs = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return (inputs @ weights - y)[:, None] * inputs


def use_trainer(monkeypatch: pytest.MonkeyPatch, trainer: PrivateSteps) -> None:
    """Have simulations of this process, and workers that it forks, train with it."""
    for module in ("checks", "engine", "simulate"):
        monkeypatch.setattr(f"hanse.simulation.{module}.make_trainer", lambda *_, **__: (trainer, "by hand"))
