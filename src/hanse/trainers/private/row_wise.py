"""Models and losses of which it is known that they take each example of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import vmap

from hanse.core.errors import TaskError
from hanse.tasks.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    Scaled,
    SquaredError,
    TokenCrossEntropy,
)
from hanse.tasks.models.base import AsImages
from hanse.trainers.chain import is_bare
from hanse.trainers.private.layers import covered

_PLAIN = (
    AsImages, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
_ENTROPIES = (CrossEntropy, TokenCrossEntropy)
_LOSSES = (*_ENTROPIES, BinaryCrossEntropy, SquaredError, AbsoluteError, Huber)


def is_row_wise(module: nn.Module) -> bool:
    """Whether a module is a plain sequence of layers none of which looks from one example at another."""
    if type(module) is nn.Sequential:
        return is_bare(module) and all(is_row_wise(layer) for layer in module)
    if not is_bare(module):
        return False
    if type(module) is nn.Flatten:
        return module.start_dim == 1
    return type(module) in _PLAIN or covered(module) is not None


def total_loss(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, y: Tensor) -> Tensor:
    """The sum over rows of the loss of each as a batch of one.

    Raises:
      TaskError: There are not as many outputs as targets.
    """
    if outputs.dim() < 1 or len(outputs) != len(y):
        raise TaskError(f"the model answered {len(y)} examples with outputs of shape {list(outputs.shape)}")
    if _means_over_rows(loss, y):
        return loss(outputs, y) * len(y)
    each = vmap(lambda output, target: loss(output.unsqueeze(0), target.unsqueeze(0)), randomness="different")
    return each(outputs, y).sum()


def _means_over_rows(loss: object, y: Tensor) -> bool:
    inner = loss.loss if type(loss) is Scaled else loss
    if type(inner) in _ENTROPIES:
        # a target below 0 may mean "ignore me", and then the mean is over fewer
        return y.dtype == torch.int64 and not bool((y < 0).any())
    return type(inner) in _LOSSES
