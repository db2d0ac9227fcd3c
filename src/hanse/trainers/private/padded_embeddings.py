"""Embeddings with `padding_idx` under `torch.vmap`, where PyTorch's own gradient is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PaddedEmbeddings(TorchFunctionMode):
    """Has `F.embedding` leave out the padding's gradient by itself.

    Where each lane has a table of its own, PyTorch (2.13) leaves it out in the first lane alone. So an example's
    gradient would depend on its place in the batch, and one example that is left out would change those of others.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As PyTorch has it."""
        kwargs = kwargs or {}
        return _embedding(*args, **kwargs) if func is F.embedding else func(*args, **kwargs)


def _embedding(
    input: Tensor,  # noqa: A002 - PyTorch's name
    weight: Tensor,
    padding_idx: int | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """As `torch.nn.functional.embedding`, whose names these are."""
    found = F.embedding(input, weight, None, *args, **kwargs)
    if padding_idx is None:
        return found
    row = padding_idx if padding_idx >= 0 else padding_idx + weight.shape[0]
    return torch.where((input == row).unsqueeze(-1), found.detach(), found)
