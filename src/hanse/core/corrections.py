"""Gradient corrections: what a strategy adds to each local step, elementwise and in place.

A strategy of one's own brings a correction of its own in the same file; nothing here needs to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from hanse.core.errors import SettingError
from hanse.core.optimizers import Tensor


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a correction may look at; every tensor has the shape of the weights.

    Where clients train side by side, weights, gradients and these tensors have one more axis before all others.

    Args:
      anchor: The weights at the start of the round, w_t.
      received: Vectors that the strategy broadcast beside the model, by name.
      kept: Vectors that this client keeps between rounds, by name; zeros at first. May be
        changed in place by `finish`.
      stacked: Whether there is that further axis, for corrections that are not elementwise.
    """

    anchor: Tensor
    received: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    stacked: bool = False


class GradientCorrection(Protocol):
    """A change of the local gradient before each optimiser step."""

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of the vectors that a client keeps between rounds."""
        ...

    def correct(self, grad: Tensor, weights: Tensor, context: StepContext) -> None:
        """Change `grad` in place."""
        ...

    def finish(self, weights: Tensor, context: StepContext, *, lr: float, num_steps: int) -> Mapping[str, Tensor]:
        """After the last step: update `context.kept` in place; return vectors to upload beside the delta."""
        ...


@dataclass(frozen=True, kw_only=True)
class Proximal:
    """FedProx's pull towards the round's starting point: `g ← g + μ (w − w_t)`.

    The gradient of the term `(μ/2) ‖w − w_t‖²` added to the local objective.

    Args:
      mu: μ ≥ 0; 0 leaves the gradient as it is.

    References:
      Li et al. 2020, arXiv:1812.06127, equation 2.
    """

    mu: float

    def __post_init__(self) -> None:
        if not 0 <= self.mu < inf:
            raise SettingError("mu", f"must be at least 0 and finite, got {self.mu}")

    @property
    def keeps(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def correct(self, grad: Tensor, weights: Tensor, context: StepContext) -> None:
        """Add `μ (w − w_t)` to the gradient."""
        grad.add_(weights, alpha=self.mu).sub_(context.anchor, alpha=self.mu)

    def finish(self, weights: Tensor, context: StepContext, *, lr: float, num_steps: int) -> Mapping[str, Tensor]:
        """Nothing to upload."""
        return {}
