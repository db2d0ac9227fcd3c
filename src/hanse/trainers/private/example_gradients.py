"""Gradients of single examples, in forms of which norms and weighted sums can be had without writing them all out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_SAFE = 1e-12, 1e15  # between these a norm in float32 has lost no square that counts


class ExampleGradients(Protocol):
    """Gradients g_i of n examples with regard to some parameters."""

    def squares(self) -> Tensor:
        """‖g_i‖², `[n]` of float64."""
        ...

    def weighted(self, scales: Tensor) -> list[Tensor]:
        """Σ c_i g_i for scales c `[n]`, one tensor for each parameter; computed in float64 where the scales are."""
        ...

    def zeroed(self, rows: Tensor) -> ExampleGradients:
        """The same with g_i = 0 where `rows`, `[n]` of bool, is true, whatever it was: NaN too."""
        ...


@dataclass(frozen=True)
class Whole:
    """Gradients that are written out.

    Args:
      each: One tensor `[n, …]` for each parameter.
    """

    each: Sequence[Tensor]

    def squares(self) -> Tensor:
        """See `ExampleGradients`."""
        return added([squares_of(gradient.flatten(1)) for gradient in self.each])

    def weighted(self, scales: Tensor) -> list[Tensor]:
        """See `ExampleGradients`."""
        return [_combined(scales, gradient) for gradient in self.each]

    def zeroed(self, rows: Tensor) -> Whole:
        """See `ExampleGradients`."""
        return Whole([_zeroed(gradient, rows) for gradient in self.each])


@dataclass(frozen=True)
class OuterProducts:
    """g_i = d_i x_iᵀ, and d_i for a bias, whose norms are products: ‖g_i‖² = ‖d_i‖² ‖x_i‖² (+ ‖d_i‖²).

    Args:
      x: Inputs, `[n, p]`.
      d: Gradients of the outputs, `[n, q]`.
      bias: Whether there is one.

    References:
      Goodfellow 2015, arXiv:1510.01799.
    """

    x: Tensor
    d: Tensor
    bias: bool

    def squares(self) -> Tensor:
        """See `ExampleGradients`."""
        return squares_of(self.d) * (squares_of(self.x) + (1 if self.bias else 0))

    def weighted(self, scales: Tensor) -> list[Tensor]:
        """See `ExampleGradients`."""
        d = scaled(self.d, scales)
        return [d.t() @ self.x, *([d.sum(0)] if self.bias else [])]

    def zeroed(self, rows: Tensor) -> OuterProducts:
        """See `ExampleGradients`."""
        return OuterProducts(_zeroed(self.x, rows), _zeroed(self.d, rows), self.bias)


@dataclass(frozen=True)
class Gram:
    """g_i = Σ_t d_it x_itᵀ over T places of an example, without writing g_i out:

        ‖g_i‖² = Σ_{s,t} ⟨d_is, d_it⟩ ⟨x_is, x_it⟩

    in float64, for the terms may cancel; a norm that came out too small would let an example through unclipped.

    Args:
      x: The layer's inputs, `[n, …]`.
      d: Gradients of the outputs, `[n, groups, q, T]`; of a layer without groups there is one.
      likeness: ⟨x_is, x_it⟩, `[n, groups, T, T]` of float64.
      bias: Whether there is one.
      total: From `x`, and `d`, scaled, to the sums for all parameters.

    References:
      Li, Tramèr, Liang, Hashimoto 2022, arXiv:2110.05679, section 4; Bu, Mao, Xu 2022, arXiv:2205.10683.
    """

    x: Tensor
    d: Tensor
    likeness: Tensor
    bias: bool
    total: Callable[[Tensor, Tensor], list[Tensor]]

    def squares(self) -> Tensor:
        """See `ExampleGradients`."""
        d = self.d.double()
        found = (d.mT @ d).mul_(self.likeness).sum((1, 2, 3)).clamp_(min=0)
        return found + squares_of(self.d.sum(3).flatten(1)) if self.bias else found

    def weighted(self, scales: Tensor) -> list[Tensor]:
        """See `ExampleGradients`."""
        return self.total(self.x, scaled(self.d, scales))

    def zeroed(self, rows: Tensor) -> Gram:
        """See `ExampleGradients`."""
        return Gram(_zeroed(self.x, rows), _zeroed(self.d, rows), _zeroed(self.likeness, rows), self.bias, self.total)


def squares_of(rows: Tensor) -> Tensor:
    """‖v_i‖² of rows `[n, m]`, in float64; neither very large nor very small numbers are lost."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    if rows.dtype != torch.float64 and norms.numel():
        low, high = torch.aminmax(norms)
        if not (low.item() > _SAFE[0] and high.item() < _SAFE[1]):
            norms = torch.linalg.vector_norm(rows.double(), dim=1)
    return norms.double().square_()


def scaled(rows: Tensor, scales: Tensor) -> Tensor:
    """c_i v_i for rows `[n, …]`, in the rows' own type."""
    each: Tensor = rows * scales.view(-1, *[1] * (rows.dim() - 1))
    return each.to(rows.dtype)


def added(parts: Sequence[Tensor]) -> Tensor:
    """The sum of one tensor or more."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _zeroed(values: Tensor, rows: Tensor) -> Tensor:
    return values.masked_fill(rows.view(-1, *[1] * (values.dim() - 1)), 0)


def _combined(scales: Tensor, each: Tensor) -> Tensor:
    flat = each.flatten(1).to(scales.dtype)
    return (scales @ flat).to(each.dtype).view(each.shape[1:])
