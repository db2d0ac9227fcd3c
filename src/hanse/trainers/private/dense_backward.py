"""Forward and backward written out for stacks of dense layers, up to what single examples' gradients are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hanse.trainers.dense_pass import RELU, TANH, dense_stack
from hanse.trainers.private.example_gradients import OuterProducts

_aten = torch.ops.aten


class DenseBackward:
    """The examples' gradients of the loss, for a stack of dense layers and cross-entropy.

    What autograd and the layers' recorded forms give too, without either's bookkeeping: that takes the 2NN as long as
    the arithmetic does, at 32 examples.

    Args:
      layers: The dense layers in order, in their final place in memory.
      activations: What follows each, by the numbers of `dense_pass`, 0 for nothing.
      flattens: Whether inputs of any shape are taken as rows of numbers.

    References:
      Goodfellow 2015, arXiv:1510.01799.
    """

    def __init__(self, layers: Sequence[nn.Linear], activations: Sequence[int], *, flattens: bool) -> None:
        self.layers = tuple(layers)
        self._activations = tuple(activations)
        self._flattens = flattens
        self._weights = [layer.weight.detach() for layer in layers]
        self._transposed = [weight.t() for weight in self._weights]
        self._biases = [None if layer.bias is None else layer.bias.detach() for layer in layers]

    @staticmethod
    def of(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> DenseBackward | None:
        """For a bare `nn.Sequential` of dense layers, with one activation each at most, and cross-entropy; or None."""
        found = dense_stack(module, loss)
        if found is None:
            return None
        layers = [layer for layer in module.children() if type(layer) is nn.Linear]
        return DenseBackward(layers, [layer.activation for layer in found[0]], flattens=found[1])

    def suits(self, x: Tensor, y: Tensor) -> bool:
        """Whether it takes these examples, `[n, …]` with n ≥ 1; others are for autograd to take, or to refuse."""
        if x.dtype != self._weights[0].dtype or y.dtype != torch.int64 or y.dim() != 1 or len(y) != len(x):
            return False
        if not (x.dim() == 2 or (self._flattens and x.dim() > 2)) or x[0].numel() != self._weights[0].shape[1]:
            return False
        low, high = torch.aminmax(y)
        return low.item() >= 0 and high.item() < len(self._weights[-1])

    def __call__(self, x: Tensor, y: Tensor) -> list[OuterProducts]:
        """The examples' gradients with regard to one layer after another; to be called without autograd.

        Args:
          x: Inputs, `[n, …]`, n ≥ 1.
          y: Classes, `[n]`.
        """
        given = [x.flatten(1)]
        for bias, transposed, activation in zip(self._biases, self._transposed, self._activations, strict=True):
            h = given[-1].mm(transposed) if bias is None else torch.addmm(bias, given[-1], transposed)
            if activation:
                h = h.relu_() if activation == RELU else h.tanh_()
            given.append(h)
        # of Σ_i loss_i with regard to the last layer's outputs: softmax − onehot
        d = torch.softmax(given.pop(), 1)
        d.scatter_add_(1, y.unsqueeze(1), d.new_full((len(y), 1), -1))
        found = [OuterProducts(given[-1], d, self._biases[-1] is not None)]
        for i in range(len(self.layers) - 2, -1, -1):
            d = _before(self._activations[i], d.mm(self._weights[i + 1]), given[i + 1])
            found.append(OuterProducts(given[i], d, self._biases[i] is not None))
        return found[::-1]


def _before(activation: int, d: Tensor, y: Tensor) -> Tensor:
    """The gradient before an activation that gave y, from the one after it."""
    if activation == RELU:
        return cast(Tensor, _aten.threshold_backward(d, y, 0))
    return cast(Tensor, _aten.tanh_backward(d, y)) if activation == TANH else d
