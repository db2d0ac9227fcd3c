"""Client optimisers as in-place update rules, elementwise on weights of any shape `[..., P]`.

A rule does not know whether it steps one client's tensor, one client's flat vector or a stack of
clients: the same lines serve all. Rules work in place because a temporary of the size of the weights
costs as much as the step itself. They call methods that torch tensors have, and import no framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Protocol

from hanse.core.errors import SettingError

Tensor = Any
"""A torch tensor (or anything with its in-place methods) of shape `[..., P]`."""

State = dict[str, Tensor]
"""An optimiser's own vectors, each of the weights' shape; empty for plain SGD."""


class Optimizer(Protocol):
    """One local update rule."""

    @property
    def lr(self) -> float:
        """Learning rate before the schedule, dimensionless, > 0."""
        ...

    def init(self, weights: Tensor) -> State:
        """Fresh state for weights of this shape; made anew for each client and round."""
        ...

    def update(self, weights: Tensor, grad: Tensor, state: State, *, lr: float, step: int) -> None:
        """Take step number `step` (from 1) in place; may overwrite `grad`."""
        ...


def _positive(where: str, value: float) -> None:
    if not 0 < value < inf:
        raise SettingError(where, f"must be more than 0 and finite, got {value}")


def _in_unit(where: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingError(where, f"must be at least 0 and below 1, got {value}")


def _not_negative(where: str, value: float) -> None:
    if not 0 <= value < inf:
        raise SettingError(where, f"must be at least 0 and finite, got {value}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum and weight decay, as PyTorch defines them.

    With g the gradient, λ weight decay and μ momentum:

        g ← g + λ w        v ← μ v + g        w ← w − lr · v

    With Nesterov's momentum the step is `g + μ v` instead of `v`.

    Args:
      lr: Learning rate, > 0.
      momentum: μ in [0, 1).
      nesterov: Look ahead; needs momentum.
      weight_decay: λ ≥ 0, coupled (L2 penalty).
    """

    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        _in_unit("momentum", self.momentum)
        _not_negative("weight_decay", self.weight_decay)
        if self.nesterov and not self.momentum:
            raise SettingError("nesterov", "Nesterov's step needs momentum > 0")

    def init(self, weights: Tensor) -> State:
        """A velocity where there is momentum."""
        return {"velocity": _zeros_like(weights)} if self.momentum else {}

    def update(self, weights: Tensor, grad: Tensor, state: State, *, lr: float, step: int) -> None:
        """One step, in place."""
        if self.weight_decay:
            grad.add_(weights, alpha=self.weight_decay)
        if self.momentum:
            velocity = state["velocity"].mul_(self.momentum).add_(grad)
            grad = grad.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
        weights.add_(grad, alpha=-lr)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, with L2 penalty or decoupled weight decay.

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
        w ← w − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    Args:
      lr: Learning rate, > 0.
      beta1: β₁ in [0, 1).
      beta2: β₂ in [0, 1).
      eps: ε > 0.
      weight_decay: λ ≥ 0, added to the gradient as `λ w`.

    References:
      Kingma, Ba 2015, arXiv:1412.6980, algorithm 1.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_adam(self)

    def init(self, weights: Tensor) -> State:
        """First and second moments, and room for the denominator."""
        return _adam_state(weights)

    def update(self, weights: Tensor, grad: Tensor, state: State, *, lr: float, step: int) -> None:
        """One step, in place."""
        if self.weight_decay:
            grad.add_(weights, alpha=self.weight_decay)
        _adam_step(self, weights, grad, state, lr=lr, step=step)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay: `w ← (1 − lr λ) w` before Adam's step.

    Args:
      lr: Learning rate, > 0.
      beta1: β₁ in [0, 1).
      beta2: β₂ in [0, 1).
      eps: ε > 0.
      weight_decay: λ ≥ 0.

    References:
      Loshchilov, Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_adam(self)

    def init(self, weights: Tensor) -> State:
        """First and second moments, and room for the denominator."""
        return _adam_state(weights)

    def update(self, weights: Tensor, grad: Tensor, state: State, *, lr: float, step: int) -> None:
        """One step, in place."""
        if self.weight_decay:
            weights.mul_(1 - lr * self.weight_decay)
        _adam_step(self, weights, grad, state, lr=lr, step=step)


def _adam_step(rule: Adam | AdamW, weights: Tensor, grad: Tensor, state: State, *, lr: float, step: int) -> None:
    mean = state["mean"].mul_(rule.beta1).add_(grad, alpha=1 - rule.beta1)
    square = state["square"].mul_(rule.beta2).addcmul_(grad, grad, value=1 - rule.beta2)
    root = state["scratch"].copy_(square).sqrt_().div_(sqrt(1 - rule.beta2**step)).add_(rule.eps)
    weights.addcdiv_(mean, root, value=-lr / (1 - rule.beta1**step))


def _zeros_like(weights: Tensor) -> Tensor:
    # a clone keeps the layout in memory (channels-last kernels), which `new_zeros` does not
    return weights.clone().zero_()


def _adam_state(weights: Tensor) -> State:
    return {name: _zeros_like(weights) for name in ("mean", "square", "scratch")}


def _check_adam(rule: Adam | AdamW) -> None:
    _positive("lr", rule.lr)
    _positive("eps", rule.eps)
    _in_unit("beta1", rule.beta1)
    _in_unit("beta2", rule.beta2)
    _not_negative("weight_decay", rule.weight_decay)
