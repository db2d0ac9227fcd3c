"""A module's layers in their covered form: what they were given, and the gradients of what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hanse.trainers.private.layers import CoveredLayer, UnsuitableError


@dataclass
class Recording:
    """By layer, one pair `(x, d)` for each use: its inputs and the gradient of its outputs, both `[n, …]`."""

    of: dict[nn.Module, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)


@contextmanager
def recorded(layers: Mapping[nn.Module, CoveredLayer]) -> Iterator[Recording]:
    """Let layers record what they are given, and in a backward pass the gradients of what they gave.

    Inside, gradients with regard to their parameters are None. Works under `torch.vmap`, with one lane an example.
    """
    recording = Recording()
    try:
        for layer, form in layers.items():
            layer.forward = _forward(layer, form, recording)  # type: ignore[method-assign]
        yield recording
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _forward(layer: nn.Module, form: CoveredLayer, recording: Recording) -> Any:
    weight = layer.weight

    def forward(x: Tensor) -> Any:
        # the weight is given so that autograd has a way back to here; it gets no gradient
        return _Recorded.apply(form.before(x), weight, _Use(layer, form, recording))

    return forward


@dataclass(frozen=True, eq=False)
class _Use:
    layer: nn.Module
    form: CoveredLayer
    recording: Recording


class _Recorded(torch.autograd.Function):
    """A covered layer's weights at work."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, use: _Use) -> Tensor:
        return use.form.forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _Use], output: Tensor) -> None:
        x, _, ctx.use = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        use: _Use = ctx.use
        use.recording.of.setdefault(use.layer, []).append((x, grad))
        return (use.form.below(grad, x) if ctx.needs_input_grad[0] else None), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, use: _Use) -> tuple[Tensor, int]:
        if in_dims[1] is not None:
            raise UnsuitableError
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        if not use.form.folds:
            return _Recorded.apply(x, weight, use), 0  # type: ignore[no-untyped-call]
        if x.dim() < 3 or x.shape[1] != 1:
            raise UnsuitableError
        return _Recorded.apply(x[:, 0], weight, use).unsqueeze(1), 0  # type: ignore[no-untyped-call]
