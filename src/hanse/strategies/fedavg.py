"""FedAvg: local training, then the mean of the clients' deltas."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanse.core.aggregate import Aggregate
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.state import ModelState


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Federated averaging: each client trains from w_t, the server averages.

    With n_k the examples of client k, n their sum over the cohort and w_k its weights after local work:

        w_{t+1} = w_t + Σ_k (n_k / n) (w_k − w_t)  =  Σ_k (n_k / n) w_k

    With `weighting="uniform"` every client of the cohort counts alike (1 / K instead of n_k / n).

    Args:
      local: What clients do; epochs E, batch size B, learning rate.
      weighting: ``"examples"`` as in the paper, or ``"uniform"``.

    References:
      McMahan et al. 2017, arXiv:1602.05629, algorithm 1. (Its loop weighs by n_k / n with n over the
      cohort, as here.)
    """

    local: LocalWork = field(default_factory=LocalWork)
    weighting: Weighting = "examples"

    def init(self, params: Params) -> ModelState:
        """The model before training."""
        return ModelState(params)

    def local_work(self, round_number: int) -> LocalWork:
        """`local`, in every round."""
        return self.local

    def step(self, state: ModelState, aggregate: Aggregate) -> ModelState:
        """Add the mean delta."""
        return ModelState(state.params + aggregate.delta)
