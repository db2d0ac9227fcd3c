"""A module's layers in their covered form: what they were given, and the gradients of what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hanse.core.errors import TaskError
from hanse.trainers.private.layers import CoveredLayer, UnsuitableError


@dataclass
class Recording:
    """By layer, one pair `(x, d)` for each use: its inputs and the gradient of its outputs, both `[n, …]`."""

    of: dict[nn.Module, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)


@contextmanager
def recorded(layers: Mapping[nn.Module, CoveredLayer], *, lanes: bool) -> Iterator[Recording]:
    """Let layers record what they are given, and in a backward pass the gradients of what they gave.

    Inside, gradients with regard to their parameters are None.

    Args:
      layers: The layers, each with its covered form.
      lanes: Whether they are called under `torch.vmap`, with one lane an example.
    """
    recording = Recording()
    try:
        for layer, form in layers.items():
            layer.forward = _forward(layer, form, recording, lanes=lanes)
        yield recording
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


@contextmanager
def left_untouched(module: nn.Module) -> Iterator[None]:
    """Refuse what layers keep of the data by themselves, for it has no noise on it.

    Raises:
      TaskError: A buffer has been changed, or another one is in its place, which has been put back; or a parameter was.
    """
    versions = [(path, parameter, parameter._version) for path, parameter in module.named_parameters()]
    before = [
        (layer, f"{prefix}.{name}".removeprefix("."), name, buffer, buffer._version)
        for prefix, layer in module.named_modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    changed = []
    try:
        yield
    finally:  # what `vmap` left in the place of a buffer is of no use outside of it, whatever happened
        for layer, path, name, buffer, version in before:
            if layer._buffers.get(name) is not buffer or buffer._version != version:
                layer._buffers[name] = buffer
                changed.append(path)
    written = next((path for path, parameter, version in versions if parameter._version != version), None)
    if written is not None:
        raise TaskError(
            f"example privacy: the model changed its parameter `{written}` by itself while it was trained, which may "
            "tell of the examples without any noise; nothing was released",
            hint="look for max_norm of an embedding, or code that writes into weights",
        )
    if changed:
        raise TaskError(
            f"example privacy: the model changed its buffer `{changed[0]}` while it was trained, which may tell of the "
            "examples without any noise; nothing was released",
            hint="take layers that keep no statistics: GroupNorm instead of BatchNorm",
        )


@contextmanager
def in_place_of(copies: Mapping[int, Tensor], module: nn.Module) -> Iterator[None]:
    """Let a module compute with other tensors in place of parameters, which are named by their `id`.

    `torch.func.functional_call` leaves copies behind where one layer stands at two places of a module (PyTorch 2.13).
    """
    swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for layer in module.modules() if copies else ():
            for name, parameter in layer._parameters.items():
                if parameter is not None and id(parameter) in copies:
                    swapped.append((layer, name, parameter))
                    layer._parameters[name] = copies[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for layer, name, parameter in swapped:
            layer._parameters[name] = parameter


def _forward(layer: nn.Module, form: CoveredLayer, recording: Recording, *, lanes: bool) -> Any:
    weight, use = layer.weight, _Use(layer, form, recording)
    apply: Any = _RecordedLanes.apply if lanes else _Recorded.apply

    def forward(x: Tensor) -> Any:
        # the weight is given so that autograd has a way back to here; it gets no gradient
        return apply(form.before(x), weight, use)

    return forward


@dataclass(frozen=True, eq=False)
class _Use:
    layer: nn.Module
    form: CoveredLayer
    recording: Recording


class _Recorded(torch.autograd.Function):
    """A covered layer's weights at work."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, use: _Use) -> Tensor:
        ctx.save_for_backward(x)
        ctx.use = use
        return use.form.forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        use: _Use = ctx.use
        use.recording.of.setdefault(use.layer, []).append((x.detach(), grad))  # with its graph it would hold itself
        return (use.form.below(grad, x) if ctx.needs_input_grad[0] else None), None, None


class _RecordedLanes(torch.autograd.Function):
    """The same under `vmap`, whose lanes are made a batch here; PyTorch takes 40 us longer to call such a function."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, use: _Use) -> Tensor:
        raise UnsuitableError("a layer was given no lanes in `vmap`")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _Use], output: Tensor) -> None:
        return

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, use: _Use) -> tuple[Tensor, int]:
        if in_dims[1] is not None:
            raise UnsuitableError("a layer's weight differs from lane to lane")
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        if not use.form.folds:
            return _Recorded.apply(x, weight, use), 0  # type: ignore[no-untyped-call]
        if x.dim() < 3 or x.shape[1] != 1:
            raise UnsuitableError("a layer was given something else than a batch of one")
        return _Recorded.apply(x[:, 0], weight, use).unsqueeze(1), 0  # type: ignore[no-untyped-call]
