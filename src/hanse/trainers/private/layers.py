"""Layers whose single examples' gradients are had from their inputs and their outputs' gradients.

Each is computed by PyTorch's own functions on weights that autograd does not see; its backward pass hands on the
gradient of the inputs and keeps that of the outputs. `x` is always `[n, …]`: one entry for each example.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hanse.trainers.private.example_gradients import ExampleGradients, Gram, OuterProducts, Whole

_aten = torch.ops.aten


class UnsuitableError(Exception):
    """The inputs are not laid out as one entry for each example."""


class CoveredLayer(Protocol):
    """One layer. `folds`: in `vmap`, examples' batches of one are to be made a batch first."""

    folds: bool

    def before(self, x: Tensor) -> Tensor:
        """What comes before the weights; autograd sees it."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """The outputs; autograd does not see it."""
        ...

    def below(self, grad: Tensor, x: Tensor) -> Tensor | None:
        """The gradient of the inputs; None where inputs have none."""
        ...

    def gradients(self, x: Tensor, grad: Tensor) -> ExampleGradients:
        """Of single examples, with regard to weight and bias."""
        ...

    def workspace(self, x: Tensor, grad: Tensor) -> int:
        """Numbers that `gradients` writes out for one example."""
        ...


def covered(layer: nn.Module) -> CoveredLayer | None:
    """The layer in a form whose examples' gradients can be told apart; None for other layers."""
    if type(layer) is nn.Linear:
        return _Linear(layer)
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return _Conv2d(layer)
    if type(layer) is nn.Embedding and layer.max_norm is None and not layer.scale_grad_by_freq:
        return _Embedding(layer)
    if type(layer) is nn.LayerNorm and layer.elementwise_affine:
        return _LayerNorm(layer)
    if type(layer) is nn.GroupNorm and layer.affine:
        return _GroupNorm(layer)
    return None


class _Linear:
    """`y = x Wᵀ + b` on the last dimension; all between it and the first are places of an example."""

    folds = False

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer

    def before(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2:
            raise UnsuitableError
        return F.linear(x, self._layer.weight, self._layer.bias)

    def below(self, grad: Tensor, x: Tensor) -> Tensor:
        return grad @ self._layer.weight

    def gradients(self, x: Tensor, grad: Tensor) -> ExampleGradients:
        bias = self._layer.bias is not None
        x, d = x.reshape(len(x), -1, x.shape[-1]), grad.reshape(len(grad), -1, grad.shape[-1])
        if x.shape[1] == 1:
            return OuterProducts(x[:, 0], d[:, 0], bias)
        if not self._by_gram(x):
            return Whole([d.mT @ x, *([d.sum(1)] if bias else [])])

        def total(x: Tensor, d: Tensor) -> list[Tensor]:
            flat = d.squeeze(1).mT.flatten(0, 1)
            return [flat.t() @ x.flatten(0, 1), *([flat.sum(0)] if bias else [])]

        wide = x.double()
        return Gram(x, d.mT.unsqueeze(1), (wide @ wide.mT).unsqueeze(1), bias, total)

    def workspace(self, x: Tensor, grad: Tensor) -> int:
        x = x.reshape(len(x), -1, x.shape[-1])
        if x.shape[1] == 1:
            return 0
        return 4 * x.shape[1] ** 2 + 2 * x[0].numel() if self._by_gram(x) else self._layer.weight.numel()

    def _by_gram(self, x: Tensor) -> bool:
        return 2 * x.shape[1] ** 2 < self._layer.weight.numel()


class _Conv2d:
    """A convolution: a linear layer on the patches of each place, which `unfold` lays out."""

    folds = True

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer
        self._how: Any = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)

    def before(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise UnsuitableError
        return cast(Tensor, _aten.convolution(x, self._layer.weight, self._layer.bias, *self._how))

    def below(self, grad: Tensor, x: Tensor) -> Tensor:
        return cast(Tensor, self._backward(grad, x, None, (True, False, False))[0])

    def gradients(self, x: Tensor, grad: Tensor) -> ExampleGradients:
        layer, bias = self._layer, self._layer.bias is not None
        n, groups = len(x), layer.groups
        patches = self._patches(x).view(n, groups, -1, grad[0, 0].numel())  # [n, groups, p, T]
        d = grad.reshape(n, groups, layer.out_channels // groups, -1)  # [n, groups, q, T]
        if not self._by_gram(d.shape[3]):
            weight = (d.flatten(0, 1) @ patches.flatten(0, 1).mT).view(n, *layer.weight.shape)
            return Whole([weight, *([d.sum(3).flatten(1)] if bias else [])])

        def total(x: Tensor, d: Tensor) -> list[Tensor]:
            sizes = [layer.out_channels] if bias else None
            _, weight, summed = self._backward(d.view(grad.shape), x, sizes, (False, True, bias))
            return [weight, summed] if bias else [weight]

        wide = patches.double()
        return Gram(x, d, wide.mT @ wide, bias, total)

    def workspace(self, x: Tensor, grad: Tensor) -> int:
        places = grad[0, 0].numel()
        patches = places * math.prod(self._layer.kernel_size) * self._layer.in_channels
        if self._by_gram(places):
            return 3 * patches + 4 * self._layer.groups * places**2
        return patches + self._layer.weight.numel()

    def _patches(self, x: Tensor) -> Tensor:
        """What each place sees, `[n, channels, kernel, kernel, height, width]`; a quarter of the time of `F.unfold`."""
        layer = self._layer
        (down, across), (high, wide), (sparse, wise) = layer.stride, layer.kernel_size, layer.dilation
        top, left = cast(tuple[int, int], layer.padding)
        x = F.pad(x, (left, left, top, top)) if top or left else x
        x = x.contiguous()
        n, channels, height, width = x.shape
        each, channel, row, column = x.stride()
        places = (height - sparse * (high - 1) - 1) // down + 1, (width - wise * (wide - 1) - 1) // across + 1
        steps = each, channel, row * sparse, column * wise, row * down, column * across
        return x.as_strided((n, channels, high, wide, *places), steps).contiguous()

    def _by_gram(self, places: int) -> bool:
        return 2 * self._layer.groups * places**2 < self._layer.weight.numel()

    def _backward(self, grad: Tensor, x: Tensor, sizes: list[int] | None, mask: tuple[bool, bool, bool]) -> Any:
        return _aten.convolution_backward(grad, x, self._layer.weight, sizes, *self._how, mask)


class _Embedding:
    """A table: places with the same symbol add up in the same row."""

    folds = False

    def __init__(self, layer: nn.Embedding) -> None:
        self._layer = layer

    def before(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self._layer.weight)

    def below(self, grad: Tensor, x: Tensor) -> None:
        return None

    def gradients(self, x: Tensor, grad: Tensor) -> ExampleGradients:
        symbols, d = x.reshape(len(x), -1), grad.reshape(len(x), -1, grad.shape[-1])
        if self._layer.padding_idx is not None:
            d = d * (symbols != self._layer.padding_idx).unsqueeze(2)

        def total(symbols: Tensor, d: Tensor) -> list[Tensor]:
            table = torch.zeros_like(self._layer.weight)
            return [table.index_add_(0, symbols.flatten(), d.squeeze(1).mT.flatten(0, 1))]

        same = symbols.unsqueeze(1) == symbols.unsqueeze(2)
        return Gram(symbols, d.mT.unsqueeze(1), same.unsqueeze(1), False, total)

    def workspace(self, x: Tensor, grad: Tensor) -> int:
        return 3 * x[0].numel() ** 2 + 2 * grad[0].numel()


class _LayerNorm:
    """`y = w ⊙ h + b` after a normalisation h of the last dimensions."""

    folds = False

    def __init__(self, layer: nn.LayerNorm) -> None:
        self._layer = layer

    def before(self, x: Tensor) -> Tensor:
        if x.dim() <= len(self._layer.normalized_shape):
            raise UnsuitableError
        return F.layer_norm(x, self._layer.normalized_shape, None, None, self._layer.eps)

    def forward(self, x: Tensor) -> Tensor:
        y = x * self._layer.weight
        return y if self._layer.bias is None else y.add_(self._layer.bias)

    def below(self, grad: Tensor, x: Tensor) -> Tensor:
        return grad * self._layer.weight

    def gradients(self, x: Tensor, grad: Tensor) -> ExampleGradients:
        own = len(x), -1, *self._layer.normalized_shape
        both = [grad * x] if self._layer.bias is None else [grad * x, grad]
        return Whole([values.reshape(own).sum(1) for values in both])

    def workspace(self, x: Tensor, grad: Tensor) -> int:
        return x[0].numel()


class _GroupNorm:
    """`y = w ⊙ h + b` by channels, after a normalisation h of each example's groups of them."""

    folds = True

    def __init__(self, layer: nn.GroupNorm) -> None:
        self._layer = layer

    def before(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self._layer.num_groups, None, None, self._layer.eps)

    def forward(self, x: Tensor) -> Tensor:
        y = x * self._by_channel(self._layer.weight, x)
        return y if self._layer.bias is None else y.add_(self._by_channel(self._layer.bias, x))

    def below(self, grad: Tensor, x: Tensor) -> Tensor:
        return grad * self._by_channel(self._layer.weight, x)

    def gradients(self, x: Tensor, grad: Tensor) -> ExampleGradients:
        both = [grad * x] if self._layer.bias is None else [grad * x, grad]
        return Whole([values.reshape(*values.shape[:2], -1).sum(2) for values in both])

    def workspace(self, x: Tensor, grad: Tensor) -> int:
        return x[0].numel()

    @staticmethod
    def _by_channel(weight: Tensor, x: Tensor) -> Tensor:
        return weight.view(-1, *[1] * (x.dim() - 2))
