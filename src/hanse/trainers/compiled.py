"""Compiled steps: forward, backward, correction and update of a batch in one call of machine code.

The graph is of one step. Ten unrolled steps in one graph were measured too and gained nothing: called through
PyTorch's own loader, without Python's guards in between, a call costs some microseconds, and unrolled steps would need
new memory for each step's weights. Batches that are shorter than the others are taken by the resident trainer, so
that nothing is compiled for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from hanse.core.corrections import StepContext
from hanse.core.errors import TaskError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.trainers.artefacts import Compiled, compiled
from hanse.trainers.fast_steps import ClientSteps, TakeStep
from hanse.trainers.lanes import changes_by_step, has_lanes, numbers
from hanse.trainers.step_graph import Factors, StepGraph, StepLayout, layout_of, record_step


@dataclass(frozen=True)
class _Ready:
    run: Compiled
    graph: StepGraph
    size: int


class CompiledSteps:
    """Takes full batches by compiled code.

    Args:
      module: The resident trainer's, with its weights in place.
      names: Names of its trainable parameters, in the order of the weights.
      loss: `(outputs, targets)` to the mean over examples.
      note: Told in words where a model or some work can't be compiled, once.
      build: Makes a recorded graph into something that runs it on tensors like those given, in place.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        note: Callable[[str], None] = lambda _: None,
        build: Callable[[fx.GraphModule, Sequence[Tensor]], Compiled] = compiled,
    ) -> None:
        self._build = build
        self._module = module
        self._names = tuple(names)
        self._loss = loss
        self._note = note
        self._buffers = [buffer.detach() for _, buffer in module.named_buffers()]
        self._ready: dict[object, _Ready | None] = {}
        self._works: dict[int, tuple[LocalWork, object]] = {}

    def begin(self, work: LocalWork, client: ClientSteps) -> TakeStep | None:
        """See `FastSteps.begin`; the first client of a kind waits for the compiler, unless the cache has the code."""
        size = work.batch_length(len(client.inputs))
        if work.objective is not None:
            self._refuse("objective", "a term of the loss that looks at representations is not compiled")
            return None
        if work.perturbation is not None:
            self._refuse("adversarial training", "batches whose inputs are moved before each step are not compiled")
            return None
        if not has_lanes(work.optimizer) or work.accumulate > 1:
            self._refuse("work", "this optimiser or accumulated batches are not compiled")
            return None
        context = None if client.contexts is None else client.contexts.by_tensor[0]
        received = () if context is None else tuple(sorted(context.received))
        kinds = tuple((tensor.shape[1:], tensor.dtype) for tensor in (client.inputs, client.targets))
        key = (size, kinds, received, self._described(work))  # compiled code looks at no type by itself
        if key not in self._ready:
            self._ready[key] = self._made(work, client, size, context)
        ready = self._ready[key]
        return None if ready is None else _steps(ready, work, client, self._buffers)

    def _described(self, work: LocalWork) -> object:
        """What of the work the graph depends on; looked at once for a round's work, which its clients share."""
        if id(work) not in self._works:
            self._works = {id(work): (work, _without_rate(work))}  # holds the work, so that no other gets its id
        return self._works[id(work)][1]

    def _made(self, work: LocalWork, client: ClientSteps, size: int, context: StepContext | None) -> _Ready | None:
        if size < 1 or len(client.inputs) < size:
            return None
        layout = layout_of(self._module, self._names, work, context)
        flat = _flat(client, self._buffers, layout)
        flat += [client.inputs[:size], client.targets[:size], _numbers(work, client, 1)]
        try:
            graph = record_step(self._module, self._loss, work, layout, flat, factored=_is_plain(work))
            return _Ready(self._build(graph.module, flat), graph, size)
        except TaskError as error:
            self._refuse("model", str(error))
            return None

    def _refuse(self, what: str, why: str) -> None:
        if what not in self._ready:
            self._ready[what] = None
            self._note(f"trainer: the {what} is trained by resident steps, not compiled ones: {why}")


def _steps(ready: _Ready, work: LocalWork, client: ClientSteps, buffers: Sequence[Tensor]) -> TakeStep:
    """The closure over one client's tensors that a step needs."""
    fixed = _flat(client, buffers, ready.graph.layout)
    given = _numbers(work, client, 1)
    changing, size, run, lr = changes_by_step(work.optimizer), ready.size, ready.run, client.lr
    weights, factors = client.weights, ready.graph.factors

    def take(inputs: Tensor, targets: Tensor, number: int) -> Tensor | None:
        if inputs.shape[0] != size:
            return None
        if changing:
            given.copy_(_numbers(work, client, number))
        # autograd has no part in this: every tensor here is a detached one
        loss, *found = run([*fixed, inputs, targets, given])
        for update in factors:
            _add_product(weights[update.weight], update, found, inputs, lr)
        return loss

    return take


def _add_product(weight: Tensor, update: Factors, found: Sequence[Tensor], inputs: Tensor, lr: float) -> None:
    """`W ← W − lr A B`."""
    left, right = update.left, update.right
    weight.addmm_(
        found[left - 1] if isinstance(left, int) else inputs.view(left),
        found[right - 1] if isinstance(right, int) else inputs.view(right),
        alpha=-lr,
    )


def _flat(client: ClientSteps, buffers: Sequence[Tensor], layout: StepLayout) -> list[Tensor]:
    """The step's tensors that stay the same from batch to batch, in the layout's order."""
    flat = list(client.weights)
    names = [] if not client.states else [name for name in client.states[0] if name != "scratch"]
    for name in names:
        flat += [state[name] for state in client.states]
    if client.contexts is not None and layout.corrected:
        by_tensor = client.contexts.by_tensor
        flat += [context.anchor for context in by_tensor]
        flat += [context.received[name] for name in layout.received for context in by_tensor]
        flat += [context.kept[name] for name in layout.kept for context in by_tensor]
        flat += [context.facts[name] for name in layout.facts for context in by_tensor]
    return [*flat, *buffers]


def _numbers(work: LocalWork, client: ClientSteps, step: int) -> Tensor:
    return torch.tensor(numbers(work.optimizer, lr=client.lr, step=step), dtype=client.weights[0].dtype)


def _is_plain(work: LocalWork) -> bool:
    rule = work.optimizer
    simple = isinstance(rule, SGD) and not rule.momentum and not rule.weight_decay
    return simple and work.max_grad_norm is None and work.correction is None


def _without_rate(work: LocalWork) -> object:
    """What of the work the graph depends on."""
    rule, correction = work.optimizer, work.correction
    settings = repr(sorted({**vars(rule), "lr": None}.items()))
    own = repr(sorted(vars(correction).items())) if hasattr(correction, "__dict__") else repr(correction)
    return type(rule), settings, type(correction), own, work.max_grad_norm
