"""Adversarial training: against a textbook loop, in every trainer, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hanse.core.adversarial import FGSM, PGD, Perturbation
from hanse.core.corrections.proximal import Proximal
from hanse.core.errors import TaskError
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import Leg, LocalWork
from hanse.core.optimizers import SGD, Adam
from hanse.core.params import Params
from hanse.core.randomness import stream
from hanse.data.examples import Examples
from hanse.tasks import CallableTask
from hanse.tasks.custom import module_task
from hanse.trainers.adversarial import Perturbs
from hanse.trainers.auto import TrainerSettings, make_robustness, make_trainer
from hanse.trainers.base import LocalResult
from hanse.trainers.choice import worth_compiling
from hanse.trainers.compiled import CompiledSteps
from hanse.trainers.resident import ResidentTrainer
from hanse.trainers.robustness import Robustness
from hanse.trainers.vectorised import VectorisedTrainer
from tests.trainers.conftest import batches_of, job, put, relative, take, train_one
from tests.trainers.test_resident_agreement import MODELS, data, make_task

FAST = FGSM(radius=0.2)
WORK = LocalWork(epochs=2, batch_size=5, optimizer=SGD(lr=0.1), adversarial=FAST)


def textbook(task: Any, work: LocalWork, start: Params, examples: Examples, *, seed: int = 5) -> Params:
    """FGSM training with PyTorch's own functions; the attack in evaluation mode."""
    module = task.module()
    put(module, start)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x, y = task.tensors(examples.x, examples.y)
    for batches in batches_of(work, len(x), seed, merge_last=len(list(module.buffers())) > 0):
        moved = []
        for rows in batches:
            module.eval()
            inputs = x[rows].clone().requires_grad_()
            task.loss(module(inputs), y[rows]).backward()
            assert inputs.grad is not None
            moved.append(inputs.detach() + 0.2 * inputs.grad.sign())
        module.train()
        optimizer.zero_grad()
        for rows, inputs in zip(batches, moved, strict=True):
            (task.loss(module(inputs), y[rows]) * (len(rows) / sum(map(len, batches)))).backward()
        optimizer.step()
    return take(module, start)


@pytest.mark.parametrize("model", ["mlp", "cnn", "residual", "norm1d"])
def test_every_step_is_the_textbooks_and_buffers_move_by_steps_alone(model: str) -> None:
    task, examples = make_task(model, "float64"), data(MODELS[model][1])
    start = task.init_params(3)
    result = train_one(ResidentTrainer(task), WORK, job(examples, start))
    assert relative(start + result.delta, textbook(task, WORK, start, examples)) < 1e-9
    plain = train_one(ResidentTrainer(task), replace(WORK, adversarial=None), job(examples, start))
    assert relative(result.delta, plain.delta) > 1e-2
    if model == "norm1d":
        arrays, before = result.delta.arrays(), plain.delta.arrays()
        assert arrays["1.num_batches_tracked"] == before["1.num_batches_tracked"]


def test_accumulated_batches_are_perturbed_at_the_same_weights() -> None:
    task, examples = make_task("mlp", "float64"), data("table")
    work, start = replace(WORK, accumulate=2), task.init_params(3)
    result = train_one(ResidentTrainer(task), work, job(examples, start))
    assert relative(start + result.delta, textbook(task, work, start, examples)) < 1e-9


IDLE = [FGSM(radius=0.0), FGSM(radius=0.3, share=0.0), PGD(radius=0.0), PGD(radius=0.3, share=0.0)]


@pytest.mark.parametrize("idle", IDLE)
@pytest.mark.parametrize("model", ["mlp", "dropout", "norm1d"])
def test_with_a_radius_or_a_share_of_0_training_is_plain_bit_by_bit(model: str, idle: Perturbation) -> None:
    task, examples = make_task(model, "float32"), data("table")
    start = task.init_params(3)
    plain = train_one(ResidentTrainer(task), replace(WORK, adversarial=None), job(examples, start))
    found = train_one(ResidentTrainer(task), replace(WORK, adversarial=idle), job(examples, start))
    assert np.array_equal(found.delta.numpy(), plain.delta.numpy())
    assert found.sums == plain.sums


def test_the_passes_of_the_attack_draw_nothing_from_dropouts_stream() -> None:
    """A perturbation of almost nothing, which takes all the passes, trains almost as none does."""
    task, examples = make_task("dropout", "float64"), data("table")
    start = task.init_params(3)
    plain = train_one(ResidentTrainer(task), replace(WORK, adversarial=None), job(examples, start))
    work = replace(WORK, adversarial=PGD(radius=1e-12))
    assert relative(train_one(ResidentTrainer(task), work, job(examples, start)).delta, plain.delta) < 1e-8


@pytest.mark.parametrize("attack", [PGD(radius=0.2), FGSM(radius=0.2, random_start=True, share=0.5)])
def test_a_clients_seed_decides_and_nothing_else(attack: Perturbation) -> None:
    task, work = make_task("mlp", "float32"), replace(WORK, adversarial=attack)
    start = task.init_params(3)
    jobs = [job(data("table", 10 + i), start, client=str(i), seed=i) for i in range(3)]
    together = list(ResidentTrainer(task).train(work, 1, jobs))
    for one, found in zip(reversed(jobs), reversed(together), strict=True):
        assert isinstance(found, LocalResult)
        alone = train_one(ResidentTrainer(task), work, one)
        assert np.array_equal(alone.delta.numpy(), found.delta.numpy())
    other = train_one(ResidentTrainer(task), work, replace(jobs[0], seed=9))
    assert relative(other.delta, together[0].delta) > 1e-3  # type: ignore[union-attr]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.26, 5), (1.0, 20), (0.01, 0)])
def test_so_large_a_part_of_the_batch_is_moved(share: float, expected: int) -> None:
    """The model hands on its inputs, so that it shows them."""
    seen: list[Tensor] = []

    class Shows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(x.detach().clone())
            out: Tensor = self.layer(x)
            return out

    examples = data("table", 20)
    task = module_task(Shows)
    work = LocalWork(steps=2, batch_size="all", adversarial=FGSM(radius=0.5, share=share), shuffle=False)
    train_one(ResidentTrainer(task), work, job(examples, task.init_params(0)))
    moved = [(x.numpy() != examples.x).any(axis=1) for x in seen]
    assert [int(rows.sum()) for rows in moved] == [expected] * 2
    if 0 < expected < 20:
        assert not np.array_equal(*moved)  # whose turn it is is drawn for each batch


def test_other_parts_of_local_work_go_on_working() -> None:
    task, examples = make_task("mlp", "float32"), data("table")
    start = task.init_params(3)
    works = [
        replace(WORK, correction=Proximal(mu=0.5)),
        replace(WORK, optimizer=Adam(lr=0.01), max_grad_norm=1.0),
        replace(WORK, trains=("0.*",)),
    ]
    for work in works:
        plain = train_one(ResidentTrainer(task), replace(work, adversarial=None), job(examples, start))
        found = train_one(ResidentTrainer(task), work, job(examples, start))
        assert 1e-4 < relative(found.delta, plain.delta) < 2
        assert found.sums["loss"] > plain.sums["loss"]


class TestFallingBack:
    def test_compiled_steps_decline_once(self) -> None:
        task, examples, notes = make_task("mlp", "float32"), data("table"), list[str]()
        fast = partial(CompiledSteps, note=notes.append, build=lambda *_: pytest.fail("compiled"))
        start = task.init_params(3)
        trainer, plain = ResidentTrainer(task, fast=fast), ResidentTrainer(task)
        for _ in range(2):
            found = train_one(trainer, WORK, job(examples, start))
            assert np.array_equal(found.delta.numpy(), train_one(plain, WORK, job(examples, start)).delta.numpy())
        (line,) = notes
        assert "adversarial training is trained by resident steps, not compiled ones" in line

    def test_side_by_side_one_after_another(self) -> None:
        task, examples, notes = make_task("mlp", "float32"), data("table"), list[str]()
        start = task.init_params(3)
        (found,) = VectorisedTrainer(task, note=notes.append).train(WORK, 1, [job(examples, start)])
        assert isinstance(found, LocalResult)
        alone = train_one(ResidentTrainer(task), WORK, job(examples, start))
        assert np.array_equal(found.delta.numpy(), alone.delta.numpy())
        assert len(notes) == 1
        assert "one after another" in notes[0]
        assert "adversarial training" in notes[0]

    def test_auto_does_not_compile(self) -> None:
        assert worth_compiling(make_task("mlp", "float32"), WORK, 1e12)[0] == "standard"


class TestRefusals:
    def test_tokens(self) -> None:
        with pytest.raises(TaskError, match="whole numbers such as tokens"):
            ResidentTrainer(make_task("lstm", "float32")).check(WORK)
        leg = LocalWork(legs=(Leg(name="own", work=WORK, keeps=True),))
        with pytest.raises(TaskError, match="whole numbers such as tokens"):
            ResidentTrainer(make_task("lstm", "float32")).check(leg)

    def test_whole_numbers_that_the_task_takes_as_they_come(self) -> None:
        perturbs = Perturbs(nn.Linear(2, 3), nn.functional.cross_entropy, torch.no_grad())
        with pytest.raises(TaskError, match=r"whole numbers \(torch.int64\)"):
            perturbs(FAST, torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4), stream(0, "x"))

    def test_a_loss_that_does_not_look_at_the_inputs(self) -> None:
        class Constant(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bias = nn.Parameter(torch.zeros(3))

            def forward(self, x: Tensor) -> Tensor:
                return self.bias.expand(len(x), 3)

        task = module_task(Constant)
        with pytest.raises(TaskError, match="no gradient with regard to them"):
            train_one(ResidentTrainer(task), WORK, job(data("table"), task.init_params(0)))

    def test_tasks_that_train_by_themselves(self) -> None:
        task = CallableTask(
            init=lambda: {"w": np.zeros(1)}, train=lambda w, x, y, seed: w, evaluate=lambda w, x, y: {"count": 0.0}
        )
        trainer, _ = make_trainer(task, TrainerSettings())
        with pytest.raises(TaskError, match="inputs moved by gradients"):
            trainer.check(WORK)
        trainer.check(replace(WORK, adversarial=FGSM(radius=0), optimizer=SGD(lr=0.1)))
        with pytest.raises(TaskError, match="shows none"):
            make_robustness(task, TrainerSettings(), FAST, seed=0)

    def test_example_privacy(self) -> None:
        trainer = ResidentTrainer(make_task("mlp", "float32"))
        with pytest.raises(TaskError, match="`adversarial` moves whole batches"):
            trainer.check(replace(WORK, example_privacy=ExamplePrivacy(clip_norm=1.0, noise_multiplier=1.0)))

    def test_float16(self) -> None:
        with pytest.raises(TaskError, match="in float16 small ones are 0"):
            ResidentTrainer(make_task("mlp", "float32"), precision="float16").check(WORK)


class TestRobustness:
    def test_of_a_linear_model_it_is_the_loss_in_the_worst_case(self) -> None:
        """Two classes with outputs 0 and wᵀx: each example's margin falls by ε ‖w‖₁."""
        task = module_task(lambda: nn.Linear(3, 2, bias=False), dtype="float64")
        w = np.array([0.5, -1.0, 2.0])
        params = Params(task.spec, np.concatenate([np.zeros(3), w]))
        rng = np.random.default_rng(0)
        examples = Examples(rng.normal(size=(900, 3)), rng.integers(0, 2, 900))
        margin = (2 * examples.y - 1) * (examples.x @ w) - 0.3 * np.abs(w).sum()
        for attack in (FGSM(radius=0.3), PGD(radius=0.3, steps=4), PGD(radius=0.3, share=0.5, random_start=False)):
            sums = Robustness(task, attack, seed=1)(params, lambda: examples)
            found = task.metrics(sums)
            assert found["loss"] == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-6)
            assert found["accuracy"] == pytest.approx((margin > 0).mean())

    def test_the_same_each_time_and_buffers_stay(self) -> None:
        task, examples = make_task("norm1d", "float32"), data("table")
        params = task.init_params(3)
        before = params.numpy().copy()
        robust = Robustness(task, FGSM(radius=0.1, random_start=True), seed=1, cache_bytes=1 << 20)
        first = robust(params, lambda: examples)
        robust(task.init_params(4), lambda: examples)
        assert robust(params, lambda: examples) == first
        assert np.array_equal(params.numpy(), before)
        assert robust(params, lambda: examples)["count"] == 23

    def test_tokens_are_refused(self) -> None:
        with pytest.raises(TaskError, match="tokens"):
            Robustness(make_task("lstm", "float32"), FAST, seed=0)
