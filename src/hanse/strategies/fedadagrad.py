"""FedAdagrad: local training, then Adagrad at the server on the mean of the clients' deltas."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.moments import MomentState, check_moments, first_state, moved


@dataclass(frozen=True, kw_only=True)
class FedAdagrad:
    """As FedAdam, but v is a sum over all rounds, so that steps grow shorter.

        m ← β₁ m + (1 − β₁) Δ        v ← v + Δ²        w ← w + η m / (√v + τ)

    Args:
      local: What clients do; epochs, batch size, learning rate.
      lr: η, the server's learning rate, > 0.
      beta1: β₁, in [0, 1); 0, as by default, is Adagrad without momentum.
      tau: τ, adaptivity, in the unit of the deltas, > 0; v begins at τ².
      weighting: ``"examples"``, or ``"uniform"`` as private runs need it.

    References:
      Reddi et al. 2021, arXiv:2003.00295, algorithm 2 (β₁ is general there; its experiments with FedAdagrad use 0).
    """

    local: LocalWork = field(default_factory=LocalWork)
    lr: float = 0.01
    beta1: float = 0.0
    tau: float = 1e-3
    weighting: Weighting = "examples"

    def __post_init__(self) -> None:
        check_moments(self.lr, self.beta1, self.tau)

    def init(self, params: Params) -> MomentState:
        """The model before training, and moments of nothing."""
        return first_state(params, self.tau)

    def local_work(self, round_number: int) -> LocalWork:
        """`local`, in every round."""
        return self.local

    def step(self, state: MomentState, aggregate: Aggregate) -> MomentState:
        """Adagrad's step along the mean delta."""
        first = self.beta1 * state.first + (1 - self.beta1) * aggregate.delta
        second = state.second.numpy() + aggregate.delta.numpy() ** 2
        return moved(state, aggregate, first, second, self.lr / (np.sqrt(second) + self.tau))
