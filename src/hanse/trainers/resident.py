"""The resident trainer: one module that stays, one client after another, any `nn.Module`.

Nothing is built per client: weights are copied into the module, batches are slices of tensors that are
already on the device, and the update rule works in place on the module's own tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from hanse.core.errors import EmptyClientError, JobError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Sums
from hanse.core.optimizers import SGD, Optimizer, State
from hanse.core.params import Params, ParamSpec
from hanse.core.randomness import derive_seed
from hanse.data.examples import Examples
from hanse.trainers.base import Key, LocalFailure, LocalJob, LocalResult
from hanse.trainers.batches import passes
from hanse.trainers.cache import ByteCache
from hanse.trainers.correction_vectors import CorrectionVectors
from hanse.trainers.lane import Lane
from hanse.trainers.loss_scale import LossScale

Precision = Literal["float32", "bfloat16", "float16"]
_CACHE_BYTES = 64 << 20


class ResidentTask(Protocol):
    """What this trainer asks of a task."""

    @property
    def spec(self) -> ParamSpec:
        """Layout of the parameters."""
        ...

    def module(self) -> nn.Module:
        """A module to train, of any weights."""
        ...

    def tensors(self, x: object, y: object) -> tuple[Tensor, Tensor]:
        """Inputs and targets as tensors on the CPU, with memory of their own."""
        ...

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """`(outputs, targets)` to the mean loss over examples, a scalar."""
        ...

    @property
    def measure(self) -> Callable[[Tensor, Tensor], Mapping[str, Tensor]]:
        """`(outputs, targets)` to additive sums."""
        ...

    def sums(self, measured: Mapping[str, Tensor]) -> Sums:
        """What `measure` returned, added up over batches, as floats."""
        ...


class ResidentTrainer:
    """Trains clients one after another in one module.

    Args:
      task: Makes the module, the tensors and the loss.
      device: A torch device, for example ``"cpu"`` or ``"cuda:0"``.
      precision: Type of the activations; parameters and updates stay in the task's own type.
        ``"float16"`` scales the loss so that small gradients survive.
      cache_bytes: Bound on the clients' tensors that are kept on the device between rounds.

    Raises:
      JobError: The device is not there.
    """

    def __init__(
        self,
        task: ResidentTask,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self._task = task
        self._precision = precision
        self._mixed = precision != "float32"
        self._module = task.module().to(_device(device))
        self._lane = Lane(self._module, task.spec)
        self._device = self._lane.device if task.spec.size else _device(device)
        self._has_images = any(len(tensor.shape) == 4 for tensor in task.spec.tensors)
        self._has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self._module.modules())
        self._trainable = ParamSpec(tuple(t for t in task.spec.tensors if t.trainable), task.spec.dtype)
        self._cache: ByteCache[tuple[Tensor, Tensor]] = ByteCache(
            cache_bytes, lambda pair: sum(t.numel() * t.element_size() for t in pair)
        )

    def check(self, work: LocalWork) -> None:
        """Any work will do."""

    def train(
        self, work: LocalWork, round_number: int, jobs: Iterable[LocalJob]
    ) -> Iterator[LocalResult | LocalFailure]:
        """One client after another; an error costs that client only."""
        self._module.train()
        for job in jobs:
            try:
                yield self._train_one(work, round_number, job)
            except Exception as error:  # noqa: BLE001 - a user's model may raise anything; it costs this client only
                yield LocalFailure(job.client, error)

    def evaluate(self, params: Params, key: Key, examples: Callable[[], Examples]) -> Sums:
        """Sums over all examples, in the module's evaluation mode."""
        x, y = self._tensors(key, examples)
        if not len(x):
            return {"count": 0.0}
        self._load(params)
        self._module.eval()
        batch = 100 if self._has_images else 1000  # measured: small batches stay in the cache under convolutions
        total: dict[str, Tensor] = {}
        with torch.inference_mode(), self._autocast():
            for inputs, targets in zip(torch.split(x, batch), torch.split(y, batch), strict=True):
                for name, value in self._task.measure(self._module(inputs), targets).items():
                    total[name] = total[name] + value if name in total else value
        self._module.train()
        return self._task.sums(total)

    def _train_one(self, work: LocalWork, round_number: int, job: LocalJob) -> LocalResult:
        began = time.perf_counter()
        x, y = self._tensors((job.client, "train"), job.examples)
        if not len(x):
            raise EmptyClientError(
                f"client `{job.client}` holds no training example",
                hint="leave it out of the federation, or give it examples; natural partitions take min_examples",
            )
        anchor = self._load(job.start)
        vectors = CorrectionVectors.of(work, job, self._trainable, anchor)
        with _seeded(self._device, derive_seed(job.seed, "torch")):
            if work.upload == "gradient":
                (grads, loss), steps = self._full_gradient(work, x, y), 0
                delta = self._lane.minus(anchor)  # of the buffers; no step has changed the rest
                delta[: self._trainable.size] = -torch.cat([grad.reshape(-1) for grad in grads])
            else:
                loss, steps = self._run_steps(work, round_number, job.seed, x, y, vectors)
                delta = self._lane.minus(anchor)
        extras: Mapping[str, Tensor] = {}
        if vectors is not None:
            weights = self._lane.copy()[: self._trainable.size]
            extras = vectors.finish(work, weights, lr=work.lr(round_number), num_steps=steps)
        return LocalResult(
            client=job.client,
            delta=Params(self._lane.spec, delta.cpu().numpy()),
            num_examples=len(x),
            num_steps=steps,
            personal=self._personal(job.personal),
            extras={name: Params(self._trainable, value.cpu().numpy()) for name, value in extras.items()},
            kept={} if vectors is None else vectors.kept_params(),
            sums={"count": float(len(x)), "loss": loss * len(x)},
            seconds=time.perf_counter() - began,
        )

    def _run_steps(
        self, work: LocalWork, round_number: int, seed: int, x: Tensor, y: Tensor, vectors: CorrectionVectors | None
    ) -> tuple[float, int]:
        """Take all local steps; the mean loss over the examples seen, and the number of steps."""
        weights = self._lane.weights
        fused = _is_plain_sgd(work.optimizer)
        states: list[State] = [] if fused else [work.optimizer.init(weight) for weight in weights]
        scale = LossScale() if self._precision == "float16" else None
        lr, update = work.lr(round_number), work.optimizer.update
        losses: list[Tensor] = []
        counts: list[int] = []
        for batches in islice(self._steps(work, x, y, seed), work.num_steps(len(x))):
            if len(batches) == 1:
                inputs, targets = batches[0]
                grads, loss = self._batch_gradient(inputs, targets, scale)
                counts.append(inputs.shape[0])
            else:
                grads, loss, count = self._mean_gradient(batches, scale)
                counts.append(count)
            losses.append(loss)
            if scale is not None and not scale.unscale(grads):
                continue  # the scaled loss overflowed: the scale was halved, the step is skipped
            if work.max_grad_norm is not None:
                _clip(grads, work.max_grad_norm)
            if vectors is not None:
                vectors.correct(work, grads, weights)
            if fused:
                torch._foreach_add_(weights, grads, alpha=-lr)
                continue
            for weight, grad, state in zip(weights, grads, states, strict=True):
                update(weight, grad, state, lr=lr, step=len(losses))
        return _weighted_mean(losses, counts), len(losses)

    def _steps(self, work: LocalWork, x: Tensor, y: Tensor, seed: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """The batches of each step; a pass is gathered once, so that its batches are slices."""
        size = work.batch_length(len(x))
        for order in passes(work, len(x), seed):
            if order is None:
                ordered_x, ordered_y = x, y
            else:
                index = torch.from_numpy(order).to(self._device)
                ordered_x, ordered_y = x.index_select(0, index), y.index_select(0, index)
            pairs = self._cut(ordered_x, ordered_y, size)
            for start in range(0, len(pairs), work.accumulate):
                yield pairs[start : start + work.accumulate]

    def _mean_gradient(
        self, batches: list[tuple[Tensor, Tensor]], scale: LossScale | None
    ) -> tuple[list[Tensor], Tensor, int]:
        """Mean gradient over the examples of several batches (times the loss scale), mean loss, examples."""
        count = sum(len(inputs) for inputs, _ in batches)
        total: list[Tensor] = []
        mean_loss = torch.zeros((), device=self._device)
        for inputs, targets in batches:
            grads, loss = self._batch_gradient(inputs, targets, scale)
            share = len(inputs) / count
            torch._foreach_mul_(grads, share)
            if total:
                torch._foreach_add_(total, grads)
            else:
                total = grads
            mean_loss = mean_loss + loss * share
        return total, mean_loss, count

    def _batch_gradient(self, inputs: Tensor, targets: Tensor, scale: LossScale | None) -> tuple[list[Tensor], Tensor]:
        """Gradient of the mean loss over one batch, times the loss scale if there is one; the mean loss."""
        if self._mixed:
            with self._autocast():
                loss = self._task.loss(self._module(inputs), targets)
        else:
            loss = self._task.loss(self._module(inputs), targets)
        params = self._lane.parameters
        found = torch.autograd.grad(loss if scale is None else loss * scale.value, params, allow_unused=True)
        grads = [torch.zeros_like(p) if g is None else g for g, p in zip(found, params, strict=True)]
        return grads, loss.detach()

    def _full_gradient(self, work: LocalWork, x: Tensor, y: Tensor) -> tuple[list[Tensor], float]:
        """The mean gradient over all examples at the loaded weights, and their mean loss."""
        grads, loss, _ = self._mean_gradient(self._cut(x, y, work.batch_length(len(x))), None)
        return grads, float(loss)

    def _cut(self, x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
        """Batches as views; batch norm can't train on one example, so a lone last one joins the batch before it."""
        full, rest = divmod(len(x), size)
        lengths = [size] * full + ([rest] if rest else [])
        if rest == 1 and full and self._has_batch_norm:
            lengths[-2:] = [size + 1]
        return list(zip(torch.split(x, lengths), torch.split(y, lengths), strict=True))

    def _load(self, params: Params) -> Tensor:
        """Copy a model into the lane; returns its vector on the device."""
        vector = params.vector
        flat = (vector if isinstance(vector, Tensor) else torch.from_numpy(params.numpy())).to(self._device)
        self._lane.load(flat)
        return flat

    def _personal(self, names: frozenset[str]) -> Params | None:
        if not names:
            return None
        spec = self._lane.spec
        wanted = ParamSpec(tuple(t for t in spec.tensors if t.name in names), spec.dtype)
        return Params(spec, self._lane.copy().cpu().numpy()).select(wanted)

    def _tensors(self, key: Key, examples: Callable[[], Examples]) -> tuple[Tensor, Tensor]:
        def make() -> tuple[Tensor, Tensor]:
            read = examples()
            x, y = self._task.tensors(read.x, read.y)
            x, y = x.to(self._device), y.to(self._device)
            return (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x), y

        return self._cache.get(key, make)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self._precision))


def _is_plain_sgd(optimizer: Optimizer) -> bool:
    """Whether a step is `w -= lr * g` and nothing else, which one fused call does for all tensors, bit for bit."""
    return isinstance(optimizer, SGD) and not optimizer.momentum and not optimizer.weight_decay


def _weighted_mean(values: list[Tensor], counts: list[int]) -> float:
    """`Σ counts · values / Σ counts`, with one wait for the device."""
    found: list[float] = torch.stack(values).tolist()
    return sum(value * count for value, count in zip(found, counts, strict=True)) / sum(counts)


def _clip(grads: list[Tensor], bound: float) -> None:
    """Scale the gradient down to an L2 norm of at most `bound`; NaN stays NaN and is caught as an update."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, float(bound / norm) if float(norm) > bound else 1.0)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise JobError(
            f"trainer.device: `{name}` can't be used here: {str(error).splitlines()[0]}",
            hint='use "cpu", or "cuda" on a machine with an NVIDIA GPU and a CUDA build of PyTorch',
        ) from error
    return device


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's generators start from `seed` inside, and go on as before afterwards.

    `torch.manual_seed` would also prepare to seed every kind of device, which costs more than a small client.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
