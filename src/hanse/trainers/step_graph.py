"""One local step as a graph: forward, backward, correction and update, recorded once for all clients.

Weight matrices of linear layers take part in a special way. Their gradient is a product `A B` whose factors are
small (a batch's errors and inputs); written out it is as large as the weights, and reading and writing it costs as
much as the product. So where a step is `w ← w − lr g` the graph hands out the factors, and one product adds them
up in place: `W ← W − lr A B`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from hanse.core.corrections import StepContext
from hanse.core.errors import TaskError
from hanse.core.local_work import LocalWork
from hanse.trainers.gradients import has_hooks
from hanse.trainers.lanes import clipped, state_names, update

_aten = torch.ops.aten
_WORTH_FACTORS = 8192  # elements; below, one more product costs more than it saves


@dataclass(frozen=True)
class StepLayout:
    """Where a step's tensors stand in the graph's flat list of inputs.

    Weights; then for each state name one for each weight; then, with a correction, anchors and the received and kept
    vectors and the facts by name, one for each weight; then buffers; then inputs, targets, and the rule's numbers.

    Args:
      weights: Names of the trainable parameters.
      states: Names of the optimiser's vectors.
      received: Names of the broadcast's vectors.
      kept: Names of the vectors that the client keeps.
      facts: Names of what is known of the client's examples from the start.
      buffers: Names of the module's buffers, all of them.
      corrected: Whether there is a correction.
    """

    weights: tuple[str, ...]
    states: tuple[str, ...]
    received: tuple[str, ...]
    kept: tuple[str, ...]
    facts: tuple[str, ...]
    buffers: tuple[str, ...]
    corrected: bool

    def split(self, flat: Sequence[Tensor]) -> StepTensors:
        """The flat list, taken apart."""
        rest, many = list(flat), len(self.weights)

        def take(count: int) -> list[Tensor]:
            taken = rest[:count]
            del rest[:count]
            return taken

        weights = take(many)
        states = {name: take(many) for name in self.states}
        anchors = take(many) if self.corrected else []
        received = {name: take(many) for name in self.received}
        kept = {name: take(many) for name in self.kept}
        facts = {name: take(many) for name in self.facts}
        contexts = [
            StepContext(
                anchor,
                {n: received[n][i] for n in received},
                {n: kept[n][i] for n in kept},
                facts={n: facts[n][i] for n in facts},
            )
            for i, anchor in enumerate(anchors)
        ]
        buffers = take(len(self.buffers))
        return StepTensors(weights, states, contexts, buffers, rest[0], rest[1], rest[2])


@dataclass(frozen=True)
class StepTensors:
    """What one step works on."""

    weights: list[Tensor]
    states: Mapping[str, list[Tensor]]
    contexts: list[StepContext]
    buffers: list[Tensor]
    inputs: Tensor
    targets: Tensor
    numbers: Tensor


@dataclass(frozen=True)
class Factors:
    """A weight whose gradient is a product, and where its factors come from.

    Args:
      weight: Its position among the weights.
      left: Position among the graph's outputs, or the shape in which the step's inputs are the factor.
      right: Likewise.
    """

    weight: int
    left: int | tuple[int, ...]
    right: int | tuple[int, ...]


@dataclass(frozen=True)
class StepGraph:
    """A recorded step.

    Args:
      module: The graph: flat inputs to a tuple, the mean loss first, then factors.
      factors: The updates that are left to do.
      layout: Where the inputs stand.
    """

    module: fx.GraphModule
    factors: tuple[Factors, ...]
    layout: StepLayout


def record_step(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    work: LocalWork,
    layout: StepLayout,
    flat: Sequence[Tensor],
    *,
    factored: bool,
) -> StepGraph:
    """Record one step on tensors like these, of which none is changed.

    Args:
      module: In training mode.
      loss: `(outputs, targets)` to the mean over examples.
      work: Rule, correction and clipping.
      layout: Where the tensors stand.
      flat: Inputs of the shapes, types and orders in memory that the graph is for.
      factored: Hand out factors; right for plain steps alone.

    Raises:
      TaskError: The model can't be recorded, and why.
    """

    _refuse_own_buffers(module)
    if any(has_hooks(parameter) for parameter in module.parameters()):
        raise TaskError("a parameter has a hook, which autograd alone would call")

    def gradients(*given: Tensor) -> tuple[Tensor, ...]:
        step = layout.split(given)
        leaves = [weight.detach().requires_grad_() for weight in step.weights]
        state = dict(zip(layout.weights, leaves, strict=True)) | dict(zip(layout.buffers, step.buffers, strict=True))
        value = loss(functional_call(module, state, (step.inputs,)), step.targets)
        found = torch.autograd.grad(value, leaves, allow_unused=True)
        grads = [torch.zeros_like(w) if g is None else g for g, w in zip(found, step.weights, strict=True)]
        return (value.detach(), *grads)

    first = _recorded(gradients, flat)
    if _code(_recorded(gradients, flat)) != _code(first):
        raise TaskError("the model does not compute the same twice, so a recorded step would not be what it does")
    _refuse_random(first)
    factors, extra = _factors(first, layout, len(flat) - 3) if factored else ((), [])
    left_out = {found.weight for found in factors}
    outputs = next(node for node in first.graph.nodes if node.op == "output")
    outputs.args = ((*outputs.args[0], *extra),)
    first.recompile()

    def whole(*given: Tensor) -> tuple[Tensor, ...]:
        step = layout.split(given)
        value, *found = first(*given)
        grads = list(found[: len(layout.weights)])
        if work.max_grad_norm is not None:
            grads = clipped(grads, work.max_grad_norm)
        for i, weight in enumerate(step.weights):
            if i in left_out:
                continue
            grad = grads[i]
            if work.correction is not None:
                grad = grad.clone()  # autograd may hand out one tensor for two weights, and this writes
                work.correction.correct(grad, weight, step.contexts[i])
            states = {name: step.states[name][i] for name in layout.states}
            update(work.optimizer, weight, grad, states, step.numbers.unbind())
        return (value, *found[len(layout.weights) :])

    return StepGraph(_recorded(whole, flat), factors, layout)


def layout_of(module: nn.Module, weights: Sequence[str], work: LocalWork, context: StepContext | None) -> StepLayout:
    """The layout for a module and for work, whose correction looks at contexts like this one."""
    corrected = work.correction is not None
    return StepLayout(
        weights=tuple(weights),
        states=state_names(work.optimizer),
        received=() if context is None else tuple(sorted(context.received)),
        kept=tuple(work.correction.keeps) if work.correction is not None else (),
        facts=() if context is None else tuple(sorted(context.facts)),
        buffers=tuple(name for name, _ in module.named_buffers()),
        corrected=corrected,
    )


def _recorded(function: Callable[..., Any], flat: Sequence[Tensor]) -> fx.GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recorded: fx.GraphModule = make_fx(
                function, decomposition_table=_SCALED_SUMS, tracing_mode="fake", _allow_non_fake_inputs=True
            )(*flat)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise TaskError(f"the model can't be recorded as a graph: {type(error).__name__}: {first}") from error
    return recorded


def _added(plain: Callable[[Tensor, Any], Tensor]) -> Callable[..., Any]:
    """`a + alpha b` as a product and a sum.

    Inductor makes `A B + alpha C` one call of `addmm` and forgets alpha (its pattern `add(mm, inp)` in PyTorch 2.13
    looks at no keyword), so that no sum with an alpha may reach it.
    """

    def added(left: Tensor, right: Any, *, alpha: float = 1) -> Any:
        return NotImplemented if alpha == 1 else plain(left, right * alpha)

    return added


_SCALED_SUMS = {
    _aten.add.Tensor: _added(_aten.add.Tensor),
    _aten.add_.Tensor: _added(_aten.add_.Tensor),
    _aten.sub.Tensor: _added(_aten.sub.Tensor),
    _aten.sub_.Tensor: _added(_aten.sub_.Tensor),
}


def _code(recorded: fx.GraphModule) -> str:
    return str(recorded.graph)


def _refuse_own_buffers(module: nn.Module) -> None:
    """PyTorch's layers change their buffers in place; another one may put new ones in their place, out of sight."""
    for layer in module.modules():
        if layer._buffers and not type(layer).__module__.startswith("torch.nn."):
            raise TaskError(f"the layer {type(layer).__name__} keeps buffers, and what it does with them can't be seen")


def _refuse_random(recorded: fx.GraphModule) -> None:
    for node in recorded.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise TaskError(f"the model draws random numbers (`{node.target}`), in another order once compiled")


def _factors(
    recorded: fx.GraphModule, layout: StepLayout, position_of_inputs: int
) -> tuple[tuple[Factors, ...], list[fx.Node]]:
    """Weights whose gradient is a product, and the nodes of their factors to hand out beside the gradients."""
    graph = recorded.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    inputs = placeholders[position_of_inputs]
    returned = next(node for node in graph.nodes if node.op == "output").args[0]
    found: list[Factors] = []
    extra: list[fx.Node] = []

    def place(node: fx.Node) -> int | tuple[int, ...]:
        if _stripped(node) is inputs:
            return tuple(node.meta["val"].shape)
        if node not in extra:
            extra.append(node)
        return 1 + extra.index(node)

    for i, node in enumerate(returned[1:]):
        value = node.meta["val"]
        pair = _product(graph, node)
        if pair is None or value.numel() < _WORTH_FACTORS or any(_aliases(part, placeholders, inputs) for part in pair):
            continue
        found.append(Factors(i, place(pair[0]), place(pair[1])))
    return tuple(found), extra


def _product(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """`(A, B)` where a gradient is `A B`, or that transposed twice."""
    turned = False
    while node.target in (_aten.t.default, _aten.detach.default):
        turned ^= node.target is _aten.t.default
        node = node.args[0]  # type: ignore[assignment]
    if node.target is not _aten.mm.default or turned:
        return None
    return node.args  # type: ignore[return-value]


_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.detach.default)


def _stripped(node: fx.Node) -> fx.Node:
    while node.target in _VIEWS:
        node = node.args[0]  # type: ignore[assignment]
    return node


def _aliases(node: fx.Node, placeholders: Sequence[fx.Node], inputs: fx.Node) -> bool:
    """Whether a factor is a view of something that goes into the graph, other than the inputs as they are."""
    if _stripped(node) is inputs:
        return False
    while node.target in (*_VIEWS, _aten.t.default, _aten.transpose.int, _aten.permute.default):
        node = node.args[0]  # type: ignore[assignment]
    return node in placeholders
