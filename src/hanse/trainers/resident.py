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

from hanse.core.corrections import StepContext
from hanse.core.errors import EmptyClientError, JobError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Sums
from hanse.core.optimizers import State
from hanse.core.params import Params, ParamSpec, TensorSpec
from hanse.core.randomness import derive_seed
from hanse.data.examples import Examples
from hanse.trainers.base import Key, LocalFailure, LocalJob, LocalResult
from hanse.trainers.batches import passes
from hanse.trainers.cache import ByteCache
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
        self._device = _device(device)
        self._precision = precision
        self._module = task.module().to(self._device)
        self._has_images = any(p.dim() == 4 for p in self._module.parameters())
        self._has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self._module.modules())
        if self._has_images:
            self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = dict(self._module.named_parameters()) | dict(self._module.named_buffers())
        self._spec = task.spec
        self._weights = [named[tensor.name].detach() for tensor in self._spec.tensors]
        self._params = [named[tensor.name] for tensor in self._spec.tensors if tensor.trainable]
        self._trainable = ParamSpec(tuple(t for t in self._spec.tensors if t.trainable), self._spec.dtype)
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
        with _seeded(self._device, derive_seed(job.seed, "torch")):
            if work.upload == "gradient":
                delta, steps, loss = self._full_gradient(work, x, y), 0, None
                contexts = _Contexts.empty()
            else:
                contexts = self._contexts(work, job, anchor)
                steps, loss = self._run_steps(work, round_number, job.seed, x, y, contexts)
                delta = self._flatten(self._weights).sub_(anchor)
        extras = contexts.finish(work, self._flat_trainable(), round_number, steps)
        sums = {"count": float(len(x))} if loss is None else {"count": float(len(x)), "loss": loss * len(x)}
        return LocalResult(
            client=job.client,
            delta=Params(self._spec, delta.cpu().numpy()),
            num_examples=len(x),
            num_steps=steps,
            personal=self._personal(job.personal),
            extras={name: Params(self._trainable, value.cpu().numpy()) for name, value in extras.items()},
            kept={name: Params(self._trainable, value.cpu().numpy()) for name, value in contexts.kept.items()},
            sums=sums,
            seconds=time.perf_counter() - began,
        )

    def _run_steps(
        self, work: LocalWork, round_number: int, seed: int, x: Tensor, y: Tensor, contexts: _Contexts
    ) -> tuple[int, float]:
        """Take all local steps; their number, and the mean loss over the examples seen."""
        weights = [param.detach() for param in self._params]
        states: list[State] = [work.optimizer.init(weight) for weight in weights]
        scale = LossScale() if self._precision == "float16" else None
        lr, correction, update = work.lr(round_number), work.correction, work.optimizer.update
        losses: list[Tensor] = []
        counts: list[int] = []
        taken, wanted = 0, work.num_steps(len(x))
        for batches in islice(self._steps(work, x, y, seed), wanted):
            grads, loss, count = self._gradient(batches, scale)
            taken += 1
            losses.append(loss)
            counts.append(count)
            if grads is None:
                continue  # the scaled loss overflowed: the scale was halved, the step is skipped
            if work.max_grad_norm is not None:
                _clip(grads, work.max_grad_norm)
            if correction is not None:
                for grad, weight, context in zip(grads, weights, contexts.by_tensor, strict=True):
                    correction.correct(grad, weight, context)
            for weight, grad, state in zip(weights, grads, states, strict=True):
                update(weight, grad, state, lr=lr, step=taken)
        seen = torch.tensor(counts, dtype=torch.float64)
        mean = torch.dot(torch.stack(losses).to("cpu", torch.float64), seen) / seen.sum()
        return taken, float(mean)

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

    def _gradient(
        self, batches: list[tuple[Tensor, Tensor]], scale: LossScale | None
    ) -> tuple[list[Tensor] | None, Tensor, int]:
        """Mean gradient over the batches' examples (None where it overflowed), mean loss, examples."""
        count = sum(len(inputs) for inputs, _ in batches)
        total: list[Tensor] | None = None
        mean_loss: Tensor | None = None
        for inputs, targets in batches:
            with self._autocast():
                loss = self._task.loss(self._module(inputs), targets)
            scaled = loss if scale is None else loss * scale.value
            found = torch.autograd.grad(scaled, self._params, allow_unused=True)
            grads = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self._params, strict=True)]
            detached = loss.detach()
            if len(batches) == 1:
                total, mean_loss = grads, detached
                break
            share = len(inputs) / count
            torch._foreach_mul_(grads, share)
            total = grads if total is None else _added(total, grads)
            mean_loss = detached * share if mean_loss is None else mean_loss + detached * share
        assert total is not None
        assert mean_loss is not None
        if scale is not None and not scale.unscale(total):
            return None, mean_loss, count
        return total, mean_loss, count

    def _full_gradient(self, work: LocalWork, x: Tensor, y: Tensor) -> Tensor:
        """Minus the mean gradient over all examples at the loaded weights: `[P]`, zero for buffers."""
        size = work.batch_length(len(x))
        batches = self._cut(x, y, size)
        buffers = {tensor.name: weight.clone() for tensor, weight in self._named_weights() if not tensor.trainable}
        grads, _, _ = self._gradient(batches, None)
        assert grads is not None
        by_name = dict(zip((t.name for t in self._trainable.tensors), grads, strict=True))
        parts = [
            -by_name[tensor.name] if tensor.trainable else after - buffers[tensor.name]
            for tensor, after in self._named_weights()
        ]
        return self._flatten(parts)

    def _cut(self, x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
        """Batches as views; batch norm can't train on one example, so a lone last one joins the batch before it."""
        full, rest = divmod(len(x), size)
        lengths = [size] * full + ([rest] if rest else [])
        if rest == 1 and full and self._has_batch_norm:
            lengths[-2:] = [size + 1]
        return list(zip(torch.split(x, lengths), torch.split(y, lengths), strict=True))

    def _named_weights(self) -> Iterator[tuple[TensorSpec, Tensor]]:
        return zip(self._spec.tensors, self._weights, strict=True)

    def _contexts(self, work: LocalWork, job: LocalJob, anchor: Tensor) -> _Contexts:
        if work.correction is None:
            return _Contexts.empty()

        def vector(params: Params) -> Tensor:
            return torch.from_numpy(params.numpy().copy()).to(self._device)

        received = {name: vector(params) for name, params in job.received.items()}
        kept = {
            name: vector(job.kept[name]) if name in job.kept else torch.zeros_like(anchor[: self._trainable.size])
            for name in work.correction.keeps
        }
        return _Contexts(self._trainable, anchor[: self._trainable.size], received, kept)

    def _load(self, params: Params) -> Tensor:
        """Copy a model into the module; returns its vector on the device."""
        vector = params.vector
        flat = vector if isinstance(vector, Tensor) else torch.from_numpy(params.numpy())
        flat = flat.to(self._device)
        with torch.no_grad():
            torch._foreach_copy_(self._weights, _views(self._spec, flat))
        return flat

    def _flatten(self, tensors: list[Tensor]) -> Tensor:
        flat = torch.empty(self._spec.size, dtype=getattr(torch, self._spec.dtype), device=self._device)
        torch._foreach_copy_(_views(self._spec, flat), tensors)
        return flat

    def _flat_trainable(self) -> Tensor:
        return self._flatten(self._weights)[: self._trainable.size]

    def _personal(self, names: frozenset[str]) -> Params | None:
        if not names:
            return None
        spec = ParamSpec(tuple(t for t in self._spec.tensors if t.name in names), self._spec.dtype)
        return Params(self._spec, self._flatten(self._weights).cpu().numpy()).select(spec)

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


class _Contexts:
    """A correction's vectors, whole and cut into one view per tensor."""

    def __init__(self, spec: ParamSpec, anchor: Tensor, received: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
        self.kept = kept
        self._whole = StepContext(anchor, received, kept)
        cut = {name: _views(spec, vector) for name, vector in {**received, **kept}.items()}
        self.by_tensor = [
            StepContext(part, {n: cut[n][i] for n in received}, {n: cut[n][i] for n in kept})
            for i, part in enumerate(_views(spec, anchor))
        ]

    @staticmethod
    def empty() -> _Contexts:
        return _Contexts(ParamSpec(()), torch.zeros(0), {}, {})

    def finish(self, work: LocalWork, weights: Tensor, round_number: int, steps: int) -> Mapping[str, Tensor]:
        if work.correction is None or work.upload == "gradient":
            return {}
        return work.correction.finish(weights, self._whole, lr=work.lr(round_number), num_steps=steps)


def _views(spec: ParamSpec, flat: Tensor) -> list[Tensor]:
    return [flat[spec.slices[tensor.name]].view(tensor.shape) for tensor in spec.tensors]


def _added(total: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    torch._foreach_add_(total, more)
    return total


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
