"""Compiled steps against the textbook loop, the graph replayed without a compiler wherever that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from hanse.core.corrections import StepContext
from hanse.core.errors import JobError, SettingError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.core.params import ParamSpec
from hanse.data.examples import Examples
from hanse.tasks.custom import module_task
from hanse.trainers import artefacts, cpp_compiler
from hanse.trainers.auto import TrainerSettings, make_trainer
from hanse.trainers.compiled import CompiledSteps
from hanse.trainers.resident import ResidentTrainer
from tests.trainers.conftest import Textbook, job, relative, train_one
from tests.trainers.test_resident_agreement import MODELS, SGD_TENTH, WORKS, data, make_task

needs_compiler = pytest.mark.skipif(cpp_compiler.compiler() is None, reason="there is no C++ compiler here")


class Replayed:
    """Makes compiled trainers whose graphs are replayed, and remembers what happened."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.built = 0
        self.calls = 0

    def trainer(self, task: Any) -> ResidentTrainer:
        return ResidentTrainer(task, fast=partial(CompiledSteps, note=self.notes.append, build=self._build))

    def _build(self, graph: fx.GraphModule, flat: Sequence[Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
        self.built += 1

        def run(tensors: list[Tensor]) -> list[Tensor]:
            self.calls += 1
            return list(graph(*tensors))

        return run


@pytest.mark.parametrize("name", [name for name in MODELS if name != "dropout"])
def test_every_model(name: str) -> None:
    task, examples, replayed = make_task(name, "float64"), data(MODELS[name][1]), Replayed()
    start, work = task.init_params(seed=3), LocalWork(epochs=3, batch_size=5, optimizer=SGD(lr=0.1))
    wanted, loss, steps = Textbook(task, SGD_TENTH).train(work, start, examples)
    result = train_one(replayed.trainer(task), work, job(examples, start))
    assert relative(start + result.delta, wanted) < 1e-9
    assert result.num_steps == steps == 15
    assert result.sums["loss"] == pytest.approx(23 * loss, rel=1e-9)
    assert (replayed.built, replayed.calls, replayed.notes) == (1, 12, [])  # the short batch of each pass is not


COMPILED = (
    *("momentum", "nesterov", "decay", "adam", "adamw", "clipped"),
    *("proximal", "proximal-momentum", "proximal-adam", "all", "one-by-one", "steps"),
)


@pytest.mark.parametrize(
    ("name", "model"), [*((name, "mlp") for name in COMPILED), ("proximal", "summands"), ("nesterov", "cnn")]
)
def test_every_kind_of_work(name: str, model: str) -> None:
    work, textbook = WORKS[name]
    task, examples, replayed = make_task(model, "float64"), data(MODELS[model][1]), Replayed()
    start = task.init_params(seed=3)
    wanted, _, steps = replace(textbook, task=task).train(work, start, examples)
    result = train_one(replayed.trainer(task), work, job(examples, start))
    assert relative(start + result.delta, wanted) < 1e-9
    assert result.num_steps == steps
    assert replayed.calls > 0


class ScaledSums(nn.Module):
    """Sums with an alpha, in place and not, in the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.add(self.inner(x), x, alpha=0.3)
        return self.outer(torch.tanh(torch.sub(hidden, x.cos(), alpha=2).add_(x, alpha=-0.5)))


def test_no_scaled_sum_reaches_the_compiler() -> None:
    # it would make one product of `A B + alpha C` and forget alpha
    graphs: list[fx.GraphModule] = []

    def build(graph: fx.GraphModule, flat: Sequence[Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
        graphs.append(graph)
        return lambda tensors: list(graph(*tensors))

    work, textbook = WORKS["proximal-momentum"]
    task, examples = module_task(ScaledSums, dtype="float64"), data("table")
    start = task.init_params(seed=3)
    wanted, _, _ = replace(textbook, task=task).train(work, start, examples)
    result = train_one(ResidentTrainer(task, fast=partial(CompiledSteps, build=build)), work, job(examples, start))
    assert relative(start + result.delta, wanted) < 1e-9
    (graph,) = graphs
    assert not [node for node in graph.graph.nodes if node.kwargs.get("alpha", 1) != 1]


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 96), nn.Tanh(), nn.Linear(96, 3))


def images() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 3))


@pytest.mark.parametrize(("build", "kind"), [(wide, "table"), (images, "images")])
@pytest.mark.parametrize("fields", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}])
def test_weights_that_are_updated_by_their_factors(build: Any, kind: str, fields: dict[str, float]) -> None:
    task, examples, replayed = module_task(build, dtype="float64"), data(kind), Replayed()
    start, work = task.init_params(3), LocalWork(epochs=2, batch_size=5, optimizer=SGD(lr=0.1, **fields))
    wanted, _, _ = Textbook(task, lambda p: torch.optim.SGD(p, lr=0.1, **fields)).train(work, start, examples)
    trainer = replayed.trainer(task)
    result = train_one(trainer, work, job(examples, start))
    assert relative(start + result.delta, wanted) < 1e-9
    (ready,) = (ready for ready in trainer._fast._ready.values() if ready is not None)  # type: ignore[union-attr]
    assert bool(ready.graph.factors) == (not fields)


def test_one_graph_serves_all_rates_and_clients() -> None:
    task, replayed = make_task("mlp", "float64"), Replayed()
    start, trainer = task.init_params(3), replayed.trainer(task)
    for lr in (0.1, 0.2):
        for count in (23, 40, 5):
            work, examples = LocalWork(batch_size=5, optimizer=SGD(lr=lr)), data("table", count)
            wanted, _, _ = Textbook(task, lambda p, lr=lr: torch.optim.SGD(p, lr=lr)).train(work, start, examples)  # type: ignore[misc]
            result = train_one(trainer, work, job(examples, start, client=f"{count} examples"))
            assert relative(start + result.delta, wanted) < 1e-9
    assert replayed.built == 1
    again = train_one(trainer, work, job(examples, start, client="5 examples"))
    np.testing.assert_array_equal(again.delta.numpy(), result.delta.numpy())


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs.squeeze(1) - targets) ** 2).mean()


def test_targets_of_another_type_get_a_graph_of_their_own() -> None:
    # compiled code would read the memory of one type as the other's
    task = module_task(lambda: nn.Sequential(nn.Linear(8, 4), nn.Softplus(), nn.Linear(4, 1)), squared)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 3, 40)
    replayed, start, work = Replayed(), task.init_params(0), LocalWork(batch_size=10, optimizer=SGD(lr=0.1))
    trainer = replayed.trainer(task)
    for name, targets in (("north", y.astype(np.float32)), ("south", y)):
        train_one(trainer, work, job(Examples(x, targets), start, client=name))
    assert replayed.built == 2


@dataclass(frozen=True)
class Control:
    """A correction with vectors that are received and kept."""

    keeps = ("own",)

    def correct(self, grad: Tensor, weights: Tensor, context: StepContext) -> None:
        grad.sub_(context.kept["own"]).add_(context.received["all"]).add_(weights - context.anchor, alpha=0.5)

    def finish(self, weights: Tensor, context: StepContext, *, lr: float, num_steps: int) -> Mapping[str, Tensor]:
        context.kept["own"].add_(weights - context.anchor)
        return {"change": weights - context.anchor}


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_correction_of_ones_own(model: str) -> None:
    task, examples, replayed = make_task(model, "float64"), data(MODELS[model][1]), Replayed()
    start = task.init_params(3)
    trainable = start.select(ParamSpec(tuple(t for t in start.spec.tensors if t.trainable), start.spec.dtype))
    rng = np.random.default_rng(0)
    vectors = {n: trainable.with_vector(rng.normal(size=trainable.spec.size) / 10) for n in ("all", "own")}
    one = job(examples, start, received={"all": vectors["all"]}, kept={"own": vectors["own"]})
    work = LocalWork(epochs=2, batch_size=5, optimizer=SGD(lr=0.1, momentum=0.5), correction=Control())
    plain, quick = (train_one(trainer, work, one) for trainer in (ResidentTrainer(task), replayed.trainer(task)))
    assert relative(quick.delta, plain.delta) < 1e-9
    assert relative(quick.kept["own"], plain.kept["own"]) < 1e-9
    assert relative(quick.extras["change"], plain.extras["change"]) < 1e-9
    assert replayed.calls == 8


class Counts(nn.Module):
    """Does something else at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.calls = nn.Linear(6, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(x * self.calls)


class Looks(nn.Module):
    """Decides by what the data says."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if float(x.sum()) > 0 else -x)


class Keeps(nn.Module):
    """Puts a new buffer in the place of the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return self.head(x - self.mean.detach())


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (Counts, "does not compute the same twice"),
        (Looks, "can't be recorded as a graph"),
        (Keeps, "the layer Keeps keeps buffers"),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)), "draws random numbers"),
    ],
)
def test_what_can_not_be_compiled_is_trained_all_the_same_and_said_once(build: Any, why: str) -> None:
    task, replayed = module_task(build), Replayed()
    start, work = task.init_params(0), LocalWork(batch_size=5, optimizer=SGD(lr=0.1))
    trainer = replayed.trainer(task)
    for _ in range(2):
        result = train_one(trainer, work, job(data("table"), start))
    assert result.num_steps == 5
    assert replayed.built == 0
    (line,) = replayed.notes
    assert line.startswith("trainer: the model is trained by resident steps, not compiled ones: ")
    assert why in line


def test_work_that_is_not_compiled() -> None:
    task, replayed = make_task("mlp", "float64"), Replayed()
    work, examples = LocalWork(batch_size=5, accumulate=2), data("table")
    trainer = replayed.trainer(task)
    quick = train_one(trainer, work, job(examples, task.init_params(0)))
    slow = train_one(ResidentTrainer(task), work, job(examples, task.init_params(0)))
    np.testing.assert_array_equal(quick.delta.numpy(), slow.delta.numpy())
    assert "accumulated batches" in replayed.notes[0]


class TestWithoutACompiler:
    def test_is_refused_with_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cpp_compiler.shutil, "which", lambda _: None)
        with pytest.raises(JobError, match="needs a C\\+\\+ compiler") as caught:
            make_trainer(make_task("mlp", "float32"), TrainerSettings(use="compiled"))
        assert "trainer.use" in str(caught.value)

    @pytest.mark.parametrize("fields", [{"device": "cuda"}, {"precision": "bfloat16"}])
    def test_settings_that_do_not_fit(self, fields: dict[str, Any]) -> None:
        with pytest.raises(SettingError, match="compiled steps run on the CPU in float32"):
            TrainerSettings(use="compiled", **fields)


class TestCacheFolder:
    def test_is_the_users_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(artefacts.CACHE, str(tmp_path))
        folder = artefacts.cache_folder()
        assert folder == tmp_path / "compiled"
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_where_others_can_write_nothing_is_loaded_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(artefacts.CACHE, str(tmp_path))
        artefacts.cache_folder().chmod(0o777)
        assert not artefacts.cache_folder().is_relative_to(tmp_path)


@needs_compiler
@pytest.mark.slow
class TestCompiled:
    """With the compiler: one model of each kind, and the cache."""

    @pytest.mark.parametrize(
        ("name", "fields"), [("mlp", {}), ("cnn", {}), ("mlp", {"momentum": 0.9, "nesterov": True})]
    )
    def test_agrees(self, name: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(artefacts.CACHE, str(tmp_path))
        examples = data(MODELS[name][1])
        rule = SGD(lr=0.1, **fields)
        for dtype, work, bound in (
            ("float32", LocalWork(steps=10, batch_size=5, optimizer=rule), 1e-5),
            ("float64", LocalWork(epochs=3, batch_size=5, optimizer=rule), 1e-9),
        ):
            task = make_task(name, dtype)  # type: ignore[arg-type]
            start = task.init_params(seed=3)
            textbook = Textbook(task, lambda p: torch.optim.SGD(p, lr=0.1, **fields))
            wanted, _, _ = textbook.train(work, start, examples)
            notes: list[str] = []
            # without Hanse's own kernels, which would take the plain steps
            trainer = ResidentTrainer(task, fast=partial(CompiledSteps, note=notes.append))
            result = train_one(trainer, work, job(examples, start))
            assert relative(start + result.delta, wanted) < bound
            other = ResidentTrainer(task, fast=CompiledSteps)  # from the cache
            again = train_one(other, work, job(examples, start))
            np.testing.assert_array_equal(again.delta.numpy(), result.delta.numpy())
            assert notes == []
        assert len(list((tmp_path / "compiled").glob("*.so"))) == 2

    @pytest.mark.parametrize(
        ("name", "model"),
        [
            *((name, "mlp") for name in ("adamw", "clipped", "proximal", "proximal-momentum", "proximal-adam")),
            ("proximal-momentum", "cnn"),
        ],
    )
    def test_kinds_of_work_agree(self, name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(artefacts.CACHE, str(tmp_path))
        work, textbook = WORKS[name]
        task, examples, notes = make_task(model, "float64"), data(MODELS[model][1]), list[str]()
        start = task.init_params(seed=3)
        wanted, _, _ = replace(textbook, task=task).train(work, start, examples)
        trainer = ResidentTrainer(task, fast=partial(CompiledSteps, note=notes.append))
        result = train_one(trainer, work, job(examples, start))
        assert relative(start + result.delta, wanted) < 1e-9
        assert notes == []
        assert len(list((tmp_path / "compiled").glob("*.so"))) == 1

    def test_code_that_computes_something_else_is_not_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # sums with an alpha, left as they are: PyTorch 2.13 forgets it
        monkeypatch.setenv(artefacts.CACHE, str(tmp_path))
        monkeypatch.setattr("hanse.trainers.step_graph._SCALED_SUMS", {})
        work, textbook = WORKS["proximal-momentum"]
        task, examples, notes = make_task("mlp", "float64"), data("table"), list[str]()
        start = task.init_params(seed=3)
        wanted, _, _ = replace(textbook, task=task).train(work, start, examples)
        trainer = ResidentTrainer(task, fast=partial(CompiledSteps, note=notes.append))
        result = train_one(trainer, work, job(examples, start))
        assert relative(start + result.delta, wanted) < 1e-9
        assert "computes something else than the model itself" in notes[0]
        assert not list((tmp_path / "compiled").glob("*.so"))
