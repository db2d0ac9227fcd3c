"""Models, data and a textbook loop to compare trainers with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.randomness import derive_seed
from hanse.data.examples import Examples
from hanse.tasks.torch_task import TorchTask, named_tensors
from hanse.trainers.base import LocalFailure, LocalJob, LocalResult
from hanse.trainers.batches import passes
from hanse.trainers.resident import ResidentTrainer

Maker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models run faster on one thread, and to the same bits everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def job(examples: Examples, start: Params, *, client: str = "a", seed: int = 5, **fields: object) -> LocalJob:
    """One client's job."""
    return LocalJob(client=client, examples=lambda: examples, start=start, seed=seed, **fields)  # type: ignore[arg-type]


def train_one(trainer: ResidentTrainer, work: LocalWork, one: LocalJob, *, round_number: int = 1) -> LocalResult:
    """The result of one client, which must succeed."""
    (result,) = trainer.train(work, round_number, [one])
    if isinstance(result, LocalFailure):
        raise result.error
    return result


@dataclass(frozen=True)
class Textbook:
    """Plain autograd and `torch.optim`, one batch after another."""

    task: TorchTask
    optimizer: Maker
    max_grad_norm: float | None = None
    mu: float = 0.0

    def train(
        self, work: LocalWork, start: Params, data: Examples, *, seed: int = 5, merge_last: bool = False
    ) -> tuple[Params, float, int]:
        """The new weights, the mean loss over examples seen, and steps."""
        module = self.task.module().train()
        put(module, start)
        parameters = list(module.parameters())
        anchors = [parameter.detach().clone() for parameter in parameters]
        optimizer = self.optimizer(parameters)
        x, y = self.task.tensors(data.x, data.y)
        torch.manual_seed(derive_seed(seed, "torch"))
        losses, steps = [], 0
        for batches in batches_of(work, len(x), seed, merge_last=merge_last):
            optimizer.zero_grad()
            rows = torch.cat(batches)
            for batch in batches:
                loss = self.task.loss(module(x[batch]), y[batch])
                (loss * (len(batch) / len(rows))).backward()
                losses += [loss.item()] * len(batch)
            if self.max_grad_norm is not None:
                # torch's own function divides by the norm plus 1e-6
                norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))  # type: ignore[union-attr]
                for parameter in parameters:
                    parameter.grad.mul_(min(1.0, self.max_grad_norm / norm))  # type: ignore[union-attr]
            for parameter, anchor in zip(parameters, anchors, strict=True):
                parameter.grad.add_(self.mu * (parameter.detach() - anchor))  # type: ignore[union-attr]
            optimizer.step()
            steps += 1
            if steps == work.steps:
                break
        return take(module, start), float(np.mean(losses)), steps


def batches_of(work: LocalWork, count: int, seed: int, *, merge_last: bool) -> Iterator[list[Tensor]]:
    size = work.batch_length(count)
    for order in passes(work, count, seed):
        rows = torch.arange(count) if order is None else torch.from_numpy(order)
        batches = list(torch.split(rows, size))
        if merge_last and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for first in range(0, len(batches), work.accumulate):
            yield batches[first : first + work.accumulate]


def put(module: nn.Module, params: Params) -> None:
    """Write a model into a module."""
    with torch.no_grad():
        for (_, tensor), value in zip(named_tensors(module).items(), params.arrays().values(), strict=True):
            tensor.copy_(torch.tensor(value))


def take(module: nn.Module, like: Params) -> Params:
    """Read a model out of a module."""
    parts = [tensor.detach().reshape(-1).to(torch.float64).numpy() for tensor in named_tensors(module).values()]
    return like.with_vector(np.concatenate(parts).astype(like.spec.dtype))


def relative(a: Params, b: Params) -> float:
    """‖a − b‖ / ‖b‖."""
    return (a - b).l2_norm() / b.l2_norm()
