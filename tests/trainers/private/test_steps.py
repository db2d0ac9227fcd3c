"""Whole rounds with example privacy, by every trainer, against a loop over examples; and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hanse.core.corrections import Proximal
from hanse.core.errors import HanseError, JobError, NonFiniteUpdateError, TaskError
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD, Adam, AdamW
from hanse.core.params import Params
from hanse.core.randomness import derive_seed
from hanse.data.examples import Examples
from hanse.tasks.custom import module_task
from hanse.tasks.torch_task import TorchTask
from hanse.testing.fakes import linear_task
from hanse.trainers.auto import TrainerSettings, make_trainer
from hanse.trainers.base import LocalFailure, LocalJob, LocalResult, Trainer
from hanse.trainers.choice import worth_compiling
from hanse.trainers.dense_pass import DensePass
from hanse.trainers.plain import PlainTrainer
from hanse.trainers.private import key_stream, noise, steps
from hanse.trainers.private.batches import poisson_batches
from hanse.trainers.private.noise import NormalNoise
from hanse.trainers.resident import ResidentTrainer
from hanse.trainers.vectorised import VectorisedTrainer
from tests.trainers.conftest import put, relative, take

KEY = 0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0
PRIVACY = ExamplePrivacy(clip_norm=0.7, noise_multiplier=0.8)
WORK = LocalWork(epochs=2, batch_size=8, optimizer=SGD(lr=0.3), example_privacy=PRIVACY)


def _dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 3))


def _images() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.GroupNorm(1, 5))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5, 3))


def _task(build: Callable[[], nn.Module] = _dense, dtype: Any = "float64") -> TorchTask:
    return module_task(build, dtype=dtype)


def _examples(count: int = 21, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(count, 1, 6, 6)), rng.integers(0, 3, count))


def _job(task: TorchTask, examples: Examples, **fields: Any) -> LocalJob:
    return LocalJob(
        **{"client": "a", "examples": lambda: examples, "start": task.init_params(1), "seed": 5, "private_key": KEY}
        | fields
    )


def _result(trainer: Trainer, work: LocalWork, job: LocalJob) -> LocalResult:
    trainer.check(work)
    (found,) = trainer.train(work, 1, [job])
    if isinstance(found, LocalFailure):
        raise found.error
    return found


def _textbook(task: TorchTask, work: LocalWork, examples: Examples, steps: int) -> Params:
    """The equation of `ExamplePrivacy`, one example at a time; the update by `torch.optim`."""
    module, start = task.module().train(), task.init_params(1)
    put(module, start)
    parameters = list(module.parameters())
    x, y = task.tensors(examples.x, examples.y)
    privacy, anchors = work.example_privacy, [p.detach().clone() for p in parameters]
    assert privacy is not None
    noise = NormalNoise(KEY)
    optimizer = _optimizer(work, parameters)
    for rows in poisson_batches(KEY, len(x), work.batch_length(len(x)), steps=steps):
        total = [torch.zeros_like(p) for p in parameters]
        for i in rows:
            grads = torch.autograd.grad(task.loss(module(x[i : i + 1]), y[i : i + 1]), parameters)
            norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
            for into, grad in zip(total, grads, strict=True):
                into += grad * min(1.0, privacy.clip_norm / norm)
        drawn = torch.empty(sum(p.numel() for p in parameters), dtype=x.dtype)
        noise.fill(drawn)
        own = drawn.split([p.numel() for p in parameters])
        for into, parameter, part, anchor in zip(total, parameters, own, anchors, strict=True):
            into += part.view_as(into) * privacy.clip_norm * privacy.noise_multiplier
            parameter.grad = into / min(work.batch_length(len(x)), len(x))
            if isinstance(work.correction, Proximal):
                parameter.grad += work.correction.mu * (parameter.detach() - anchor)
        optimizer.step()
    return take(module, start) - start


def _optimizer(work: LocalWork, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    rule: Any = work.optimizer
    if isinstance(rule, SGD):
        return torch.optim.SGD(parameters, rule.lr, momentum=rule.momentum, weight_decay=rule.weight_decay)
    kind = torch.optim.Adam if isinstance(rule, Adam) else torch.optim.AdamW
    return kind(parameters, rule.lr, (rule.beta1, rule.beta2), rule.eps, rule.weight_decay)


WORKS = {
    "epochs": (WORK, 6),
    "steps": (replace(WORK, steps=4), 4),
    "momentum and weight decay": (replace(WORK, optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=0.01)), 6),
    "DP-Adam": (replace(WORK, optimizer=Adam(lr=0.01)), 6),
    "AdamW": (replace(WORK, optimizer=AdamW(lr=0.01)), 6),
    "proximal": (replace(WORK, correction=Proximal(mu=0.4)), 6),
    "all at once": (replace(WORK, batch_size="all"), 2),
    "batches larger than the client": (replace(WORK, batch_size=100), 2),
    "mostly empty batches": (replace(WORK, batch_size=1, steps=12), 12),
}


@pytest.mark.parametrize("name", WORKS)
def test_agrees_with_a_loop_over_examples(name: str) -> None:
    work, steps = WORKS[name]
    task, examples = _task(), _examples()
    found = _result(ResidentTrainer(task), work, _job(task, examples))
    assert found.num_steps == steps
    assert relative(found.delta, _textbook(task, work, examples, steps)) < 1e-9


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_agrees_for_convolutions(dtype: str, tolerance: float) -> None:
    task, examples = _task(_images, dtype), _examples()
    found = _result(ResidentTrainer(task), WORK, _job(task, examples))
    assert relative(found.delta, _textbook(task, WORK, examples, 6)) < tolerance


def _compiled(task: TorchTask) -> Trainer:
    """The compiled trainer as it is made, with whatever machine code there is left in wait."""
    return ResidentTrainer(task, whole=DensePass.of)


TRAINERS: dict[str, Callable[[TorchTask], Trainer]] = {
    "resident": ResidentTrainer,
    "auto": lambda task: make_trainer(task, TrainerSettings(use="auto"))[0],
    "compiled": _compiled,
    "vectorised": VectorisedTrainer,
}


@pytest.mark.parametrize("use", TRAINERS)
def test_all_trainers_take_the_same_steps(use: str) -> None:
    task, examples = _task(dtype="float32"), _examples()
    wanted = _result(ResidentTrainer(task), WORK, _job(task, examples))
    found = _result(TRAINERS[use](task), WORK, _job(task, examples))
    assert np.array_equal(found.delta.numpy(), wanted.delta.numpy())


def test_compiling_is_not_chosen_for_it() -> None:
    assert worth_compiling(_task(), WORK, 1e9)[0] == "standard"


def test_the_vectorised_trainer_says_how_it_does_it() -> None:
    told: list[str] = []
    task = _task()
    _result(VectorisedTrainer(task, note=told.append), WORK, _job(task, _examples()))
    assert len(told) == 1
    assert "steps with example privacy have the examples of one client side by side" in told[0]


@pytest.mark.parametrize("use", TRAINERS)
def test_a_result_depends_on_nobody_else(use: str) -> None:
    """Neither on who was before, nor on who else is in a group, nor on whether work without privacy was done."""
    task = _task(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3)), "float32")
    jobs = [
        replace(_job(task, _examples(15 + k, k)), client=f"c{k}", seed=k, private_key=KEY + k, position=k)
        for k in range(4)
    ]
    together = list(TRAINERS[use](task).train(WORK, 1, jobs))
    for job, found in zip(jobs, together, strict=True):
        trainer = TRAINERS[use](task)
        list(trainer.train(replace(WORK, example_privacy=None), 1, [jobs[0]]))
        alone = _result(trainer, WORK, job)
        assert isinstance(found, LocalResult)
        assert np.array_equal(found.delta.numpy(), alone.delta.numpy())


def test_the_private_key_decides_and_the_seed_does_not() -> None:
    task, examples = _task(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3))), _examples()
    trainer = ResidentTrainer(task)

    def delta(**fields: int) -> np.ndarray:
        return _result(trainer, WORK, _job(task, examples, **fields)).delta.numpy()

    assert np.array_equal(delta(), delta(seed=99))
    assert not np.array_equal(delta(), delta(private_key=KEY + 1))


def test_without_noise_and_with_a_large_bound_it_is_plain_descent() -> None:
    """Whole batches: then the plain trainer takes the same ones."""
    task, examples = _task(_images), _examples()
    plain = LocalWork(epochs=4, batch_size="all", optimizer=SGD(lr=0.3))
    private = replace(plain, example_privacy=ExamplePrivacy(clip_norm=1e6, noise_multiplier=0.0))
    found, wanted = (_result(ResidentTrainer(task), work, _job(task, examples)) for work in (private, plain))
    assert relative(found.delta, wanted.delta) < 1e-9


@pytest.mark.parametrize(("count", "batch"), [(40, 8), (5, 8)])
def test_noise_is_of_the_size_that_is_said(count: int, batch: int) -> None:
    """Of the 20,200 parameters' changes over 10 steps of size lr: by chance a key fails with probability 1e-4."""
    task = _task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 500), nn.Linear(500, 3)), "float32")
    work = replace(WORK, batch_size=batch, steps=10, optimizer=SGD(lr=1.0))
    loud, quiet = (
        _result(
            ResidentTrainer(task),
            replace(work, example_privacy=ExamplePrivacy(clip_norm=1e-4, noise_multiplier=z)),
            _job(task, _examples(count)),
        ).delta.numpy()
        for z in (1000.0, 0.0)
    )
    noise = (loud - quiet).astype(np.float64)  # gradients of norm 1e-4 at most hardly differ between the two
    deviation = 1000.0 * 1e-4 / min(batch, count) * math.sqrt(10)
    assert abs(noise.std() / deviation - 1) < 4 * math.sqrt(1 / (2 * len(noise)))
    assert abs(noise.mean()) < 4 * deviation / math.sqrt(len(noise))


def test_steps_without_an_example_are_noise_alone() -> None:
    task, examples = _task(), _examples(400)
    work = replace(WORK, batch_size=1, steps=1)
    key = next(key for key in range(1, 50) if not len(next(poisson_batches(key, 400, 1, steps=1))))
    found = _result(ResidentTrainer(task), work, _job(task, examples, private_key=key)).delta.numpy()
    noise = torch.empty(found.size, dtype=torch.float64)
    NormalNoise(key).fill(noise)
    assert np.allclose(found, -0.3 * 0.7 * 0.8 * noise.numpy(), rtol=1e-12)


def test_nothing_is_told_beside_the_delta() -> None:
    task = _task()
    found = _result(ResidentTrainer(task), WORK, _job(task, _examples()))
    assert found.sums == {}
    assert found.num_steps == 6
    assert not found.extras


def test_one_example_more_moves_one_step_by_at_most_the_bound() -> None:
    """With batches of all and no noise; q stays 1, and n counts as in the work of the larger set."""
    task, examples = _task(), _examples(9)
    work = LocalWork(steps=1, batch_size=9, optimizer=SGD(lr=1.0), example_privacy=replace(PRIVACY, noise_multiplier=0))
    whole = _result(ResidentTrainer(task), work, _job(task, examples)).delta.numpy() * 9
    less = Examples(examples.x[:8], examples.y[:8])
    without = _result(ResidentTrainer(task), work, _job(task, less)).delta.numpy() * 8
    assert np.linalg.norm(whole - without) <= 0.7 * (1 + 1e-12)


def test_a_restriction_of_training_comes_after_the_noise() -> None:
    class Half:
        keeps = ()

        def correct(self, grad: Tensor, weights: Tensor, context: Any) -> None:
            grad.mul_(context.received["mask"])

        def finish(self, weights: Tensor, context: Any, *, lr: float, num_steps: int) -> dict[str, Tensor]:
            return {}

    task, examples = _task(), _examples()
    start = task.init_params(1)
    mask = start.with_vector((np.arange(start.spec.size) % 2).astype(np.float64))
    work = replace(WORK, correction=Half())
    found = _result(ResidentTrainer(task), work, _job(task, examples, received={"mask": mask})).delta.numpy()
    assert not found[::2].any()
    assert found[1::2].all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_examples_without_a_finite_gradient_count_as_zero_and_nobody_else_is_told(bad: float) -> None:
    task, examples, told = _task(), _examples(), list[str]()
    examples.x[:, 0, 0, 0] = bad
    trainer = ResidentTrainer(task, note=told.append)
    found = _result(trainer, WORK, _job(task, examples))
    normal, drawn = NormalNoise(KEY), torch.empty(found.delta.spec.size, dtype=torch.float64)
    wanted = torch.zeros_like(drawn)
    for _ in range(6):
        normal.fill(drawn)
        wanted -= 0.3 * 0.7 * 0.8 / 8 * drawn
    assert np.allclose(found.delta.numpy(), wanted.numpy(), rtol=1e-9, atol=1e-12)
    assert found.sums == {}
    assert not found.extras
    used = sum(len(rows) for rows in poisson_batches(KEY, 21, 8, steps=6))
    assert [line for line in told if "no finite norm" in line] == told
    assert len(told) == 1
    assert f"client `a`, round 1: {used} times" in told[0]


def test_weights_that_are_no_longer_finite_are_the_client_s_failure() -> None:
    task, examples = _task(), _examples()
    loud = replace(PRIVACY, clip_norm=1e3)
    work = replace(WORK, optimizer=SGD(lr=1e308), example_privacy=loud)
    (found,) = ResidentTrainer(task).train(work, 1, [_job(task, examples)])
    assert isinstance(found, LocalFailure)
    assert isinstance(found.error, NonFiniteUpdateError)
    assert "weights are no longer finite" in str(found.error)


def test_noise_without_a_compiler_is_the_same_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task, examples, told = _task(dtype="float32"), _examples(), list[str]()
    wanted = _result(ResidentTrainer(task), WORK, _job(task, examples)).delta.numpy()
    for module in (steps, noise):
        monkeypatch.setattr(module, "noise_kernels", lambda: None)
    monkeypatch.setattr(key_stream, "noise_kernels", lambda: None)
    trainer = ResidentTrainer(task, note=told.append)
    for _ in range(2):
        assert np.array_equal(_result(trainer, WORK, _job(task, examples)).delta.numpy(), wanted)
    assert len(told) == 1
    assert "noise is made by NumPy" in told[0]


def test_steps_without_a_key_are_refused() -> None:
    task = _task()
    with pytest.raises(JobError, match="without a private key"):
        _result(ResidentTrainer(task), WORK, _job(task, _examples(), private_key=0))


class _Counting(nn.Module):
    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.dense, self.in_place = nn.Linear(36, 3), in_place
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.seen += x.detach().mean()
        else:
            self.seen = self.seen + x.detach().mean()
        out: Tensor = self.dense(x.flatten(1))
        return out


@pytest.mark.parametrize("in_place", [False, True])
def test_buffers_that_follow_the_data_are_refused_before_anything_is_released(in_place: bool) -> None:
    task = _task(lambda: _Counting(in_place=in_place))
    trainer = ResidentTrainer(task)
    for _ in range(2):
        with pytest.raises(HanseError, match="changed its buffer `seen`"):
            _result(trainer, WORK, _job(task, _examples()))


def _with(layer: Callable[[], nn.Module]) -> TorchTask:
    return _task(lambda: nn.Sequential(layer(), nn.Flatten(), nn.Linear(36, 3)))


def _hooked() -> nn.Module:
    module = nn.Linear(6, 6)
    module.weight.register_hook(lambda grad: grad)
    return module


def _backward_hooked() -> nn.Module:
    module = nn.Linear(6, 6)
    module.register_full_backward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize(
    ("task", "work", "words"),
    [
        (_task(), replace(WORK, accumulate=2), "accumulate = 2 would average"),
        (_task(), replace(WORK, max_grad_norm=1.0), "max_grad_norm would clip"),
        (_task(), replace(WORK, upload="gradient"), 'upload = "gradient" takes none'),
        (_with(lambda: nn.BatchNorm2d(1)), WORK, r"`0` \(BatchNorm2d\) mixes the examples of a batch"),
        (_with(lambda: nn.BatchNorm2d(1, affine=False, track_running_stats=False)), WORK, "mixes the examples"),
        (_with(lambda: nn.InstanceNorm2d(1, track_running_stats=True)), WORK, "keeps statistics"),
        (_task(lambda: nn.Embedding(5, 3, max_norm=1.0)), WORK, "changes its own rows"),
        (_task(lambda: nn.Embedding(5, 3, scale_grad_by_freq=True)), WORK, "scales gradients"),
        (_with(_hooked), WORK, "has hooks on gradients"),
        (_with(_backward_hooked), WORK, "has hooks on gradients"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [ResidentTrainer, VectorisedTrainer])
def test_what_would_not_hide_examples_is_refused(
    make: Callable[[TorchTask], Trainer], task: TorchTask, work: LocalWork, words: str
) -> None:
    trainer = make(task)
    with pytest.raises(TaskError, match=words):
        trainer.check(work)
    trainer.check(replace(work, example_privacy=None))
    (found,) = trainer.train(work, 1, [_job(task, _examples())])  # nor without having been asked before
    assert isinstance(found, LocalFailure)
    assert isinstance(found.error, TaskError)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_refused(precision: Any) -> None:
    with pytest.raises(TaskError, match=f"{precision} rounds and scales"):
        ResidentTrainer(_task(dtype="float32"), precision=precision).check(WORK)


def test_tasks_that_train_by_themselves_are_refused() -> None:
    trainer = PlainTrainer(linear_task())
    with pytest.raises(TaskError, match="steps that hide each example"):
        trainer.check(WORK)
    results: Iterable[Any] = trainer.train(
        WORK, 1, [LocalJob(client="a", examples=_examples, start=Params.from_arrays({"w": np.ones(2)}), seed=1)]
    )
    assert [type(found.error) for found in results] == [TaskError]


def test_keys_of_batches_noise_and_dropout_differ() -> None:
    derived = {derive_seed(KEY, purpose, bits=63) for purpose in ("example batches", "example noise", "torch")}
    assert len(derived) == 3
