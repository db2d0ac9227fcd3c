"""The loop that a careful person writes by hand for one job: no framework, nothing that the arithmetic does not need.

Tensors indexed directly, no `DataLoader`, no copy of the model per client, fused updates. It takes the cohorts and
the order of examples from the same random streams as Hanse, so both compute the same thing and can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.jobs import BATCH, LR, SEED, Job, federation, mnist, task
from hanse.core.randomness import derive_seed, stream


def model_of(job: Job) -> nn.Sequential:
    if job.model == "2nn":
        layers = [nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)]
    else:
        layers = [nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(*layers)


def run(job: Job) -> Iterator[tuple[dict[str, float], Tensor]]:
    """Seconds of each round by phase with its accuracy, and the model's flat parameters."""
    data = mnist()
    shared = federation(job, data)
    assert shared.shared_out is not None
    assert data.test is not None
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)
    test_x, test_y = torch.from_numpy(data.test.x), torch.from_numpy(data.test.y)
    rows = {client: torch.from_numpy(shared.shared_out.rows_of(client)).long() for client in shared.clients}
    model = model_of(job)
    params = list(model.parameters())
    current = torch.from_numpy(task(job, shared).init_params(SEED).vector.copy())
    for number in range(1, job.rounds + 2):
        began = time.perf_counter()
        chosen = np.sort(stream(SEED, "cohort", number).choice(job.clients, size=job.cohort, replace=False))
        total, weight = torch.zeros_like(current), 0
        for client in (shared.clients[i] for i in chosen.tolist()):
            nn.utils.vector_to_parameters(current.clone(), params)  # a clone: the parameters become views of it
            own = rows[client]
            shuffle = stream(derive_seed(SEED, "client", number, client), "shuffle")
            order = own[torch.from_numpy(shuffle.permutation(len(own)))]
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                loss = F.cross_entropy(model(x[batch]), y[batch])
                grads = torch.autograd.grad(loss, params)
                with torch.no_grad():
                    torch._foreach_add_(params, grads, alpha=-LR)
            total.add_(nn.utils.parameters_to_vector(params).detach(), alpha=len(own))
            weight += len(own)
        current = total / weight
        trained = time.perf_counter()
        nn.utils.vector_to_parameters(current, params)
        correct, loss_sum = 0, 0.0
        with torch.no_grad():
            for inputs, targets in zip(
                test_x.split(job.lean_test_batch), test_y.split(job.lean_test_batch), strict=True
            ):
                outputs = model(inputs)
                correct += int((outputs.argmax(1) == targets).sum())
                loss_sum += float(F.cross_entropy(outputs, targets, reduction="sum"))
        done = time.perf_counter()
        seconds = {"round": done - began, "train": trained - began, "evaluate": done - trained}
        yield {**seconds, "accuracy": correct / len(test_y), "loss": loss_sum / len(test_y)}, current
