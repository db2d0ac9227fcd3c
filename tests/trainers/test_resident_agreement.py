"""The resident trainer against a textbook loop, for every kind of model and of local work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hanse.core.corrections import Proximal
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD, Adam, AdamW
from hanse.core.schedules import Exponential
from hanse.data.examples import Examples
from hanse.tasks.custom import module_task
from hanse.trainers.resident import ResidentTrainer
from tests.trainers.conftest import Maker, Textbook, job, relative, train_one

Dtype = Literal["float32", "float64"]


class Residual(nn.Module):
    """A small residual network with batch norm: buffers, strides, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(x + self.norm2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """Tokens to a class through an LSTM of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(7, 4), nn.LSTM(4, 5, 2, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])


class Tied(nn.Module):
    """One matrix used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Summands(nn.Module):
    """Two biases that are added up: autograd hands out one tensor as the gradient of both."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3) / 3)
        self.bias, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), -1.0))
        self.level = nn.Parameter(torch.ones(2))  # enters as a sum: its gradient has stride 0

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + (self.bias + self.shift) * x[:, :1] + self.level.sum() * x[:, 1:4]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 3)
    )


def norm1d() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def data(kind: str, count: int = 23) -> Examples:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, count)
    x: np.ndarray
    if kind == "tokens":
        x = rng.integers(0, 7, (count, 6))
    else:
        x = rng.normal(size=(count, 6) if kind == "table" else (count, 3, 8, 8)).astype(np.float32)
    return Examples(x, y)


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mlp": (mlp, "table"),
    "cnn": (cnn, "images"),
    "residual": (Residual, "images"),
    "lstm": (Recurrent, "tokens"),
    "dropout": (dropout, "table"),
    "tied": (Tied, "table"),
    "summands": (Summands, "table"),
    "norm1d": (norm1d, "table"),
}
SGD_TENTH: Maker = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731


def make_task(name: str, dtype: Dtype) -> Any:
    build, kind = MODELS[name]
    return module_task(build, dtype=dtype, input_kind="index" if kind == "tokens" else "number")


@pytest.mark.parametrize(
    ("dtype", "work", "bound"),
    [
        ("float32", LocalWork(steps=10, batch_size=5, optimizer=SGD(lr=0.1)), 1e-5),
        ("float64", LocalWork(epochs=3, batch_size=5, optimizer=SGD(lr=0.1)), 1e-9),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str, dtype: Dtype, work: LocalWork, bound: float) -> None:
    task, examples = make_task(name, dtype), data(MODELS[name][1])
    start = task.init_params(seed=3)
    wanted, loss, steps = Textbook(task, SGD_TENTH).train(work, start, examples)
    result = train_one(ResidentTrainer(task), work, job(examples, start))
    assert relative(result.delta, wanted - start) < bound * 10  # of the way gone, shorter than the weights
    assert relative(start + result.delta, wanted) < bound
    assert result.num_steps == steps
    assert result.num_examples == 23
    assert result.sums["count"] == 23
    assert result.sums["loss"] == pytest.approx(23 * loss, rel=1e-5 if dtype == "float32" else 1e-9)


WORKS: dict[str, tuple[LocalWork, Textbook]] = {
    name: (
        LocalWork(**{"epochs": 2, "batch_size": 5, "optimizer": SGD(lr=0.1), **fields}),
        Textbook(None, maker, **more),
    )  # type: ignore[arg-type]
    for name, fields, maker, more in [
        ("momentum", {"optimizer": SGD(lr=0.1, momentum=0.9)}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), {}),
        (
            "nesterov",
            {"optimizer": SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)},
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
            {},
        ),
        (
            "decay",
            {"optimizer": SGD(lr=0.1, weight_decay=0.3)},
            lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.3),
            {},
        ),
        (
            "adam",
            {"optimizer": Adam(lr=0.01, weight_decay=0.1)},
            lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
            {},
        ),
        ("adamw", {"optimizer": AdamW(lr=0.01)}, lambda p: torch.optim.AdamW(p, lr=0.01), {}),
        ("clipped", {"max_grad_norm": 0.2}, SGD_TENTH, {"max_grad_norm": 0.2}),
        ("proximal", {"correction": Proximal(mu=0.7)}, SGD_TENTH, {"mu": 0.7}),
        (
            "proximal-momentum",
            {"optimizer": SGD(lr=0.1, momentum=0.9, weight_decay=0.1), "correction": Proximal(mu=0.7)},
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
            {"mu": 0.7},
        ),
        (
            "proximal-adam",
            {"optimizer": Adam(lr=0.01), "correction": Proximal(mu=0.7)},
            lambda p: torch.optim.Adam(p, lr=0.01),
            {"mu": 0.7},
        ),
        ("accumulate", {"accumulate": 3}, SGD_TENTH, {}),
        ("accumulate-clipped", {"accumulate": 2, "max_grad_norm": 0.1}, SGD_TENTH, {"max_grad_norm": 0.1}),
        ("all", {"batch_size": "all"}, SGD_TENTH, {}),
        ("in-order", {"shuffle": False}, SGD_TENTH, {}),
        ("larger-than-all", {"batch_size": 1000}, SGD_TENTH, {}),
        ("one-by-one", {"batch_size": 1}, SGD_TENTH, {}),
        ("steps", {"steps": 13}, SGD_TENTH, {}),
        ("steps-of-all", {"steps": 3, "batch_size": "all"}, SGD_TENTH, {}),
    ]
}


@pytest.mark.parametrize("model", ["mlp", "summands", "cnn"])
@pytest.mark.parametrize("name", WORKS)
def test_every_kind_of_work(name: str, model: str) -> None:
    work, textbook = WORKS[name]
    task, examples = make_task(model, "float64"), data(MODELS[model][1])
    start = task.init_params(seed=3)
    wanted, loss, steps = replace(textbook, task=task).train(work, start, examples)
    result = train_one(ResidentTrainer(task), work, job(examples, start))
    assert relative(start + result.delta, wanted) < 1e-9
    assert (wanted - start).l2_norm() > 1e-3
    assert result.num_steps == steps
    assert result.sums["loss"] == pytest.approx(23 * loss, rel=1e-9)


def test_a_lone_last_example_joins_the_batch_before_it_under_batch_norm() -> None:
    task, examples = make_task("norm1d", "float64"), data("table", 21)
    work, start = LocalWork(epochs=2, batch_size=5, optimizer=SGD(lr=0.1)), task.init_params(seed=3)
    wanted, _, steps = Textbook(task, SGD_TENTH).train(work, start, examples, merge_last=True)
    result = train_one(ResidentTrainer(task), work, job(examples, start))
    assert result.num_steps == steps == 8
    assert relative(start + result.delta, wanted) < 1e-9


def test_buffers_are_part_of_the_delta() -> None:
    task, examples = make_task("norm1d", "float64"), data("table", 20)
    start = task.init_params(seed=3)
    delta = train_one(ResidentTrainer(task), LocalWork(batch_size=5), job(examples, start)).delta.arrays()
    assert delta["1.num_batches_tracked"] == 4
    assert np.abs(delta["1.running_mean"]).max() > 0


def test_accumulated_batches_are_one_big_batch() -> None:
    task, examples = make_task("mlp", "float64"), data("table")
    start, trainer = task.init_params(seed=3), ResidentTrainer(task)
    big = LocalWork(epochs=2, batch_size=12, optimizer=SGD(lr=0.1, momentum=0.9))
    small = replace(big, batch_size=4, accumulate=3)
    one, other = (train_one(trainer, work, job(examples, start)) for work in (big, small))
    assert one.num_steps == other.num_steps == 4
    assert relative(one.delta, other.delta) < 1e-12


def test_the_schedule_scales_the_rate_of_the_round() -> None:
    task, examples = make_task("mlp", "float64"), data("table")
    start, trainer = task.init_params(seed=3), ResidentTrainer(task)
    falling = LocalWork(batch_size=5, optimizer=SGD(lr=0.4), schedule=Exponential(decay=0.5))
    third = train_one(trainer, falling, job(examples, start), round_number=3)
    steady = train_one(trainer, LocalWork(batch_size=5, optimizer=SGD(lr=0.1)), job(examples, start))
    np.testing.assert_array_equal(third.delta.numpy(), steady.delta.numpy())


class TestGradientUpload:
    @pytest.mark.parametrize("size", ["all", 23, 5, 4, 22, 1])
    @pytest.mark.parametrize("model", ["mlp", "summands", "cnn"])
    def test_is_minus_the_mean_gradient_over_all_examples(self, model: str, size: Any) -> None:
        task, examples = make_task(model, "float64"), data(MODELS[model][1])
        start = task.init_params(seed=3)
        one_step = LocalWork(batch_size="all", optimizer=SGD(lr=1.0), shuffle=False)
        wanted, loss, _ = Textbook(task, lambda p: torch.optim.SGD(p, lr=1.0)).train(one_step, start, examples)
        result = train_one(ResidentTrainer(task), LocalWork(upload="gradient", batch_size=size), job(examples, start))
        assert relative(result.delta, wanted - start) < 1e-12
        assert result.num_steps == 0
        assert result.sums["loss"] == pytest.approx(23 * loss, rel=1e-12)

    def test_buffers_bring_their_change(self) -> None:
        task, examples = make_task("norm1d", "float64"), data("table", 21)
        start = task.init_params(seed=3)
        work = LocalWork(upload="gradient", batch_size=5)
        delta = train_one(ResidentTrainer(task), work, job(examples, start)).delta.arrays()
        assert delta["1.num_batches_tracked"] == 4  # the lone last example joined a batch
        assert np.abs(delta["1.running_mean"]).max() > 0
