"""The resident trainer: one module that stays, one client after another, any `nn.Module`.

Nothing is built per client: weights are copied into the module, batches are slices of tensors that are
already on the device, and the update rule works in place on the module's own tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from hanse.core.corrections import Fact, is_steady, needs_of
from hanse.core.errors import EmptyClientError, NonFiniteUpdateError, TaskError
from hanse.core.local_work import EVERYTHING, LocalWork
from hanse.core.messages import Sums
from hanse.core.objectives import LocalObjective
from hanse.core.optimizers import State
from hanse.core.params import Params, ParamSpec
from hanse.core.randomness import derive_seed
from hanse.data.examples import Examples
from hanse.tasks.global_generator import seeded
from hanse.trainers.adversarial import PerturbedBatches, refuse_unmovable
from hanse.trainers.base import Key, LocalFailure, LocalJob, LocalResult, Part
from hanse.trainers.batches import passes
from hanse.trainers.chain import Chain
from hanse.trainers.contexts import Contexts, FindFacts, Finished
from hanse.trainers.dense_pass import DensePass
from hanse.trainers.device_data import Batches, DeviceData
from hanse.trainers.divergence import refuse_non_finite
from hanse.trainers.evaluator import Evaluator
from hanse.trainers.fast_steps import ClientSteps, FastSteps, WholePasses
from hanse.trainers.gradients import Backward, clip, owned
from hanse.trainers.linear_model import LinearModel
from hanse.trainers.local_facts import LocalFacts
from hanse.trainers.loss_scale import LossScale
from hanse.trainers.module_weights import ModuleWeights, module_on
from hanse.trainers.moving import Moving, MovingParts
from hanse.trainers.objectives import FixedModels, loss_by_places, representation_layer
from hanse.trainers.plain_steps import chain_steps, is_plain, plain_steps, weighted_mean
from hanse.trainers.private.refusals import refuse_unprivate
from hanse.trainers.private.steps import PrivateSteps
from hanse.trainers.received_vectors import ReceivedVectors
from hanse.trainers.resident_task import ResidentTask
from hanse.trainers.rows import RowReader, Rows
from hanse.trainers.stepper import Stepper
from hanse.trainers.torch_device import torch_device

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
MakeFastSteps = Callable[[nn.Module, Sequence[str], Callable[[Tensor, Tensor], Tensor]], FastSteps]
MakeChain = Callable[[nn.Module, Callable[[Tensor, Tensor], Tensor]], Chain | None]
Loss = Callable[[Tensor, Tensor], Tensor]
MakeWholePasses = Callable[[nn.Module, Callable[[Tensor, Tensor], Tensor]], WholePasses | None]
_CACHE_BYTES = 32 << 20


class ResidentTrainer:
    """Trains clients one after another in one module.

    Args:
      task: Makes the module, the tensors and the loss.
      device: A torch device, for example ``"cpu"`` or ``"cuda:0"``.
      precision: Type of the activations; parameters and updates stay in the task's own type.
        ``"float16"`` scales the loss so that small gradients survive; ``"tf32"`` is float32 here, see `numerics`.
      cache_bytes: Bound on the clients' tensors that are kept on the device between rounds.
      fast: Makes a quicker way to take steps, given the module, the names of its trainable parameters and the loss.
      whole: Makes a way to take all of a client's plain steps at once, given the module and the loss; where it makes
        none, or the client does not suit, steps are taken one by one.
      chain: Writes plain steps out, given the module and the loss; by default `Chain.of` where there is no `fast`.
      note: Told in words where private steps are slow, and of examples in them whose gradient is not finite.

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
        fast: MakeFastSteps | None = None,
        whole: MakeWholePasses | None = None,
        chain: MakeChain | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._task = task
        self._note = note
        self._told = False
        self._private: PrivateSteps | None = None
        self._facts: LocalFacts | None = None
        self._fixed: FixedModels | None = None
        self._device = torch_device(device)
        self._precision = precision
        self._autocast: AbstractContextManager[object] = nullcontext()
        if precision not in ("float32", "tf32"):
            self._autocast = torch.autocast(self._device.type, dtype=getattr(torch, precision))
        self._module = module_on(task, self._device)
        if any(p.dim() == 4 for p in self._module.parameters()):
            # the kernels' order decides that of all that follows; measured, the inputs' makes no difference
            self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._layers = tuple(self._module.modules())
        self._weights = ModuleWeights(self._module, task.spec, self._device)
        self._received = ReceivedVectors(self._weights.trainable)
        if chain is None and fast is None:
            chain = Chain.of
        chained = chain(self._module, task.loss) if chain is not None and precision == "float32" else None
        names = [tensor.name for tensor in task.spec.tensors if tensor.trainable]
        self._fast = fast(self._module, names, task.loss) if fast is not None else None
        at_once = whole(self._module, task.loss) if whole is not None and precision == "float32" else None
        native = at_once.gradients() if isinstance(at_once, DensePass) else None
        parameters = self._weights.parameters
        self._moving = Moving(parameters, Backward(parameters), chained, at_once)  # by the work at hand
        self._parts = MovingParts(self._weights, self._moving, next_best=self._chain_beside_fast)
        self._stepper = Stepper(
            self._module,
            self._weights,
            task.loss,
            gradients=self._moving.gradients,
            written=[one for one in (native, chained) if one is not None],
            autocast=self._autocast,
        )
        self._perturbed = PerturbedBatches(self._module, task.loss, self._autocast)
        self._rows = RowReader(task, cache_bytes=cache_bytes)
        has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self._module.modules())
        self.data = DeviceData(task, self._device, cache_bytes=cache_bytes, join_lone=has_batch_norm)
        self._evaluator = Evaluator(
            task, self._module, weights=self._weights, data=self.data, device=self._device, autocast=self._autocast
        )

    def check(self, work: LocalWork) -> None:
        """Any work will do, but for what example privacy can't go with, unknown layers, and a few things in float16.

        Raises:
          TaskError: Work with example privacy, and something that would not keep it; an objective asks for a layer that
            is not there; a stepping or a perturbation in float16, or one of tokens; second derivatives of a model
            that is not linear.
        """
        for piece in work.pieces:
            if piece.objective is not None:
                representation_layer(self._module, piece.objective.layer)
            if piece.perturbation is not None:
                refuse_unmovable(self._task, self._precision)
            if piece.upload == "newton":
                LinearModel.of(self._module, self._task.loss)
            if piece.stepping is not None and self._precision == "float16":
                raise TaskError(
                    f"`{type(piece.stepping).__name__}` takes several gradients a step, and in float16 any of them may "
                    "overflow",
                    hint='use precision = "bfloat16" or "float32"',
                )
        if work.example_privacy is not None:
            refuse_unprivate(work, self._module, self._precision)

    def train(
        self, work: LocalWork, round_number: int, jobs: Iterable[LocalJob]
    ) -> Iterator[LocalResult | LocalFailure]:
        """One client after another; an error costs that client only."""
        if not all(layer.training for layer in self._layers):  # to say it again takes as long as some steps
            self._module.train()
        for job in jobs:
            try:
                yield self._train_one(work, round_number, job)
            except Exception as error:  # noqa: BLE001 - a user's model may raise anything; it costs this client only
                yield LocalFailure(job.client, error)

    def evaluate(self, params: Params, key: Key, examples: Callable[[], Examples]) -> Sums:
        """Sums over all examples, in the module's evaluation mode."""
        return self._evaluator.sums(params, key, examples)

    def evaluate_each(self, params: Params, parts: Iterable[Part]) -> Iterator[Sums | LocalFailure]:
        """See `hanse.trainers.base.EvaluatesEach`: small clients are measured together."""
        return self._evaluator.each(params, parts)

    @property
    def in_blocks(self) -> bool:
        """On a CPU; some other devices add up in narrower types."""
        return self._device.type == "cpu"

    def facts(self, facts: tuple[Fact, ...], data: tuple[Tensor, Tensor], weights: Params) -> dict[str, Tensor]:
        """What is to be known of examples on the device, `[n, …]`, at these weights."""
        self._weights.load(weights)
        return self._loaded_facts(data, facts)

    def _loaded_facts(
        self, data: tuple[Tensor, Tensor], facts: tuple[Fact, ...], weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The facts at the weights that are in the module: they are those that are asked about."""
        if self._facts is None:
            self._facts = LocalFacts(self._module, self._weights.parameters, self._task.loss)
        return self._facts(facts, *data)

    def _own_facts(self, job: LocalJob, facts: tuple[Fact, ...], weights: Tensor | None) -> dict[str, Tensor]:
        with self.data.tensors((job.client, "train"), job.examples) as data:
            return self._loaded_facts(data, facts, weights)

    def _train_one(self, work: LocalWork, round_number: int, job: LocalJob) -> LocalResult:
        began = time.perf_counter()
        examples = cache(job.examples)  # two may ask for them below
        lr = work.lr(round_number)
        self.check(work)  # whoever forgot to ask before must not get steps without privacy
        self._moving = self._parts.of(work)
        whole = self._moving.whole
        if whole is not None and is_plain(work) and work.upload == "delta":
            rows = self._rows((job.client, "train"), examples)
            if len(rows) and whole.suits(rows, work.batch_length(len(rows))):
                job = replace(job, examples=examples) if needs_of(work.correction) else job
                return self._train_whole(whole, work, round_number, job, rows, began=began)
        finished = Finished({}, {})
        with self.data.tensors((job.client, "train"), examples) as (x, y):
            count = len(x)
            if not count:
                raise EmptyClientError(
                    f"client `{job.client}` holds no training example",
                    hint="leave it out of the federation, or give it examples; natural partitions take min_examples",
                )
            anchor = self._weights.load(job.start)
            contexts = None
            taken: tuple[int, float | None]
            kept: dict[str, Params] = {}
            if work.correction is not None:
                contexts = self._contexts(work, job, anchor, partial(self._loaded_facts, (x, y)))
            if work.example_privacy is not None:
                with self._seeded(job.private_key):  # nobody may know what dropout leaves in
                    taken = self._private_steps(work, lr, round_number, job, (x, y), contexts), None
                delta = self._weights.change(anchor)
            elif work.upload == "gradient":
                with self._seeded(job.seed):
                    delta, loss = self._full_gradient(work, x, y)
                taken = 0, loss
            elif work.upload == "newton":
                told = LinearModel.of(self._module, self._task.loss).curvature(self._task.loss, x, y)
                delta, taken = -told.gradient.to(anchor.dtype), (0, float(told.loss))
                finished.extras.update(told.extras(job.start.spec))
            elif work.stepping is not None:
                taken, kept = self._stepped(work, lr, job, (x, y))
                delta = self._weights.change(anchor)
            else:
                taken = self._run_steps(work, lr, job, (x, y), contexts)
                if work.trains != EVERYTHING:
                    self._weights.put_back(self._still(work), anchor)
                delta = self._weights.change(anchor)
            finished.kept.update(kept)
            if contexts is not None:
                finished = contexts.finish(self._weights.current, lr=lr, num_steps=taken[0])
        if work.objective is not None:
            after = Params(self._weights.spec, self._weights.collect().cpu().numpy())
            finished.kept.update(dict.fromkeys(work.objective.keeps, after))
        return self._result(round_number, job, began, delta, count, taken, finished=finished)

    def _train_whole(
        self, whole: WholePasses, work: LocalWork, round_number: int, job: LocalJob, rows: Rows, *, began: float
    ) -> LocalResult:
        """All of a client's plain steps at once, with a steady correction or none."""
        anchor, lr, count, drift, finished = self._weights.load(job.start), work.lr(round_number), len(rows), None, None
        contexts = None if work.correction is None else self._contexts(work, job, anchor, partial(self._own_facts, job))
        if contexts is not None:
            drift = contexts.drift(lr)
        steps, batch = work.num_steps(count, share=job.share), work.batch_length(count)
        done = whole(passes(work, count, job.seed), rows, batch=batch, steps=steps, lr=lr, drift=drift)
        delta = self._weights.change(anchor)
        if contexts is not None:
            finished = contexts.finish(self._weights.current, lr=lr, num_steps=done[0])
        return self._result(round_number, job, began, delta, count, done, finished=finished)

    def _contexts(self, work: LocalWork, job: LocalJob, anchor: Tensor, find: FindFacts | None) -> Contexts:
        assert work.correction is not None  # who asks has looked
        trainable = self._weights.trainable
        start = anchor if job.anchor is None else torch.tensor(job.anchor.numpy(), device=self._device)
        moving, shared = self._moving.names, self._received if is_steady(work.correction) else None
        return Contexts(trainable, start[: trainable.size], work.correction, job, find, moving=moving, shared=shared)

    def _chain_beside_fast(self) -> Chain | None:
        usable = self._fast is not None and self._precision == "float32"
        return Chain.of(self._module, self._task.loss) if usable else None

    def _still(self, work: LocalWork) -> frozenset[str]:
        """Those that it does not."""
        return frozenset(self._weights.spec.slices) - self._weights.spec.matching(work.trains)

    def _result(
        self,
        round_number: int,
        job: LocalJob,
        began: float,
        change: Tensor,
        count: int,
        taken: tuple[int, float | None],
        *,
        finished: Finished | None = None,
    ) -> LocalResult:
        delta = Params(job.start.spec, change.cpu().numpy())
        finished = finished or Finished({}, {})
        refuse_non_finite(job.client, round_number, {"delta": delta, **finished.extras, **finished.kept})
        num_steps, loss = taken
        return LocalResult(
            client=job.client,
            delta=delta,
            num_examples=count,
            num_steps=num_steps,
            personal=self._personal(job.personal),
            extras=finished.extras,
            kept=finished.kept,
            sums={} if loss is None else {"count": float(count), "loss": loss * count},
            seconds=time.perf_counter() - began,
            scale=finished.scale,
        )

    def _run_steps(
        self, work: LocalWork, lr: float, job: LocalJob, data: tuple[Tensor, Tensor], contexts: Contexts | None
    ) -> tuple[int, float]:
        """Take all local steps; their number, and the mean loss over the examples seen."""
        loss_of: Loss = self._loss_of
        if work.objective is not None:  # batches then bring the places of their examples in place of targets
            loss_of = self._loss_with(work.objective, job, data)
            data = data[0], torch.arange(len(data[0]), device=self._device)
        steps: Iterator[Batches] = islice(
            self.data.steps(work, *data, job.seed), work.num_steps(len(data[0]), share=job.share)
        )
        if work.perturbation is not None:
            steps = self._perturbed(work.perturbation, steps, job.seed)
        plain, entire, drift = is_plain(work), work.trains == EVERYTHING, None
        if plain and contexts is not None:
            drift = contexts.drift(lr)
        chain = self._moving.chain
        if plain and chain is not None and chain.suits(*data):
            return chain_steps(chain, steps, lr, drift)  # no layer of a chain draws random numbers
        with self._seeded(job.seed):
            if plain and (self._fast is None or not entire) and self._precision != "float16":
                return plain_steps(
                    steps,
                    lr,
                    drift,
                    loss_of=self._loss_of,
                    parameters=self._moving.parameters,
                    gradients=self._moving.gradients,
                    autocast=self._autocast,
                )
            return self._any_steps(work, lr, data, steps, contexts, loss_of)

    def _stepped(
        self, work: LocalWork, lr: float, job: LocalJob, data: tuple[Tensor, Tensor]
    ) -> tuple[tuple[int, float], dict[str, Params]]:
        """Take all steps of a stepping; as `_run_steps`, and what the client keeps."""
        if self._fast is not None and not self._told:
            self._told = True
            self._note("trainer: local steps of a strategy's own are taken one by one, and not compiled")
        steps = islice(self.data.steps(work, *data, job.seed), work.num_steps(len(data[0]), share=job.share))
        with self._seeded(job.seed):
            (taken, told), kept = self._stepper(work, lr, job, data, steps)
        counts = [count for count, _ in told]
        return (taken, weighted_mean([loss for _, loss in told], counts)), kept

    def _private_steps(
        self,
        work: LocalWork,
        lr: float,
        round_number: int,
        job: LocalJob,
        data: tuple[Tensor, Tensor],
        contexts: Contexts | None,
    ) -> int:
        """Take all local steps with example privacy; their number. What it cost them is not told: it has no noise."""
        if self._private is None:
            parameters, loss = self._weights.parameters, self._task.loss
            self._private = PrivateSteps(self._module, parameters, loss, note=self._note)
        whose = f"client `{job.client}`, round {round_number}"
        return self._private(work, lr, job.private_key, data, contexts, share=job.share, whose=whose)

    def _any_steps(
        self,
        work: LocalWork,
        lr: float,
        data: tuple[Tensor, Tensor],
        steps: Iterator[list[tuple[Tensor, Tensor]]],
        contexts: Contexts | None,
        loss_of: Loss,
    ) -> tuple[int, float]:
        """`_run_steps` of every kind."""
        weights = [param.detach() for param in self._moving.parameters]
        states: list[State] = [work.optimizer.init(weight) for weight in weights]
        scale = LossScale() if self._precision == "float16" else None
        update = work.optimizer.update
        take = None
        if self._fast is not None and work.trains == EVERYTHING:
            take = self._fast.begin(work, ClientSteps(weights, states, contexts, lr, *data))
        losses: list[Tensor] = []
        counts: list[int] = []
        taken = 0
        for batches in steps:
            quick = take(*batches[0], taken + 1) if take is not None and len(batches) == 1 else None
            if quick is not None:
                taken += 1
                losses.append(quick)
                counts.append(len(batches[0][0]))
                continue
            grads, loss, count = self._gradient(batches, scale, loss_of)
            losses.append(loss)
            counts.append(count)
            if grads is None:
                continue  # the scaled loss overflowed: the scale was halved, the step is skipped
            taken += 1
            if work.max_grad_norm is not None:
                clip(grads, work.max_grad_norm)
            if contexts is not None:
                contexts.correct(grads, weights)
            for weight, grad, state in zip(weights, grads, states, strict=True):
                update(weight, grad, state, lr=lr, step=taken)
        if not taken:
            raise NonFiniteUpdateError(
                f"all {len(losses)} local steps overflowed in {self._precision}, so no step was taken",
                hint='use precision = "bfloat16" or "float32"',
            )
        return taken, weighted_mean(losses, counts)

    def _gradient(
        self, batches: list[tuple[Tensor, Tensor]], scale: LossScale | None, loss_of: Loss
    ) -> tuple[list[Tensor] | None, Tensor, int]:
        """Mean gradient over the batches' examples (None where it overflowed), mean loss, examples."""
        count = len(batches[0][0])
        total, mean_loss = self._one_batch(*batches[0], scale, loss_of)
        if len(batches) > 1:
            first, count = count, sum(len(inputs) for inputs, _ in batches)
            torch._foreach_mul_(total, first / count)
            mean_loss = mean_loss * (first / count)
            for inputs, targets in batches[1:]:
                grads, loss = self._one_batch(inputs, targets, scale, loss_of)
                torch._foreach_add_(total, grads, alpha=len(inputs) / count)
                mean_loss = mean_loss + loss * (len(inputs) / count)
        if scale is not None and not scale.unscale(total):
            return None, mean_loss, count
        return total, mean_loss, count

    def _loss_of(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._task.loss(self._module(inputs), targets)

    def _loss_with(self, objective: LocalObjective, job: LocalJob, data: tuple[Tensor, Tensor]) -> Loss:
        if self._fixed is None:
            self._fixed = FixedModels(self._task, self._device, self._autocast)
        fixed = self._fixed.representations(objective, job, data[0])
        return loss_by_places(objective, self._module, self._task.loss, data[1], fixed)

    def _one_batch(
        self, inputs: Tensor, targets: Tensor, scale: LossScale | None, loss_of: Loss
    ) -> tuple[list[Tensor], Tensor]:
        """One batch's gradients, in memory that may be written, and its mean loss."""
        with self._autocast:
            loss = loss_of(inputs, targets)
        found = self._moving.gradients(loss if scale is None else loss * scale.value)
        return owned(found, self._moving.parameters), loss.detach()

    def _full_gradient(self, work: LocalWork, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """Minus the mean gradient over all examples at the loaded weights, for buffers their change; the mean loss."""
        batches = self.data.cut(x, y, work.batch_length(len(x)))
        scale = LossScale() if self._precision == "float16" else None
        before = [buffer.clone() for buffer in self._weights.buffers()]
        grads: list[Tensor] | None = None
        while grads is None:  # under a scale, until it no longer overflows; ends at a scale of 1
            for buffer, first in zip(self._weights.buffers(), before, strict=True):
                buffer.copy_(first)
            grads, loss, _ = self._gradient(batches, scale, self._loss_of)
        change = [after - buffer for after, buffer in zip(self._weights.buffers(), before, strict=True)]
        return self._weights.flatten([*(-grad for grad in grads), *change]), float(loss)

    def _personal(self, names: frozenset[str]) -> Params | None:
        if not names:
            return None
        spec = self._weights.spec
        whole = Params(spec, self._weights.collect().cpu().numpy())
        return whole.select(ParamSpec(tuple(t for t in spec.tensors if t.name in names), spec.dtype))

    def _seeded(self, seed: int) -> AbstractContextManager[None]:
        """torch's global generators seeded inside by a client's seed, and as they were afterwards."""
        generators = [torch.default_generator]
        if self._device.type == "cuda":
            generators.append(torch.cuda.default_generators[self._device.index or 0])
        return seeded(derive_seed(seed, "torch"), generators)
