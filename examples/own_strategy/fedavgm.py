"""FedAvgM: momentum on the server. A strategy of one's own, in one file."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting


@dataclass(frozen=True)
class FedAvgMState:
    """The model and the server's velocity."""

    params: Params
    velocity: Params


@dataclass(frozen=True, kw_only=True)
class FedAvgM:
    """Heavy-ball momentum on the averaged client delta.

    With d the weighted mean of (w_k − w_t) over the round's clients:

        v_{t+1} = β v_t + d        w_{t+1} = w_t + η v_{t+1}

    Equals FedAvg when β = 0 and η = 1 (see test_reduces_to_fedavg).

    Args:
      beta: β, momentum, dimensionless, in [0, 1).
      eta: η, the server's learning rate, dimensionless, > 0.
      local: What clients do.
      weighting: How the mean weighs clients.

    References:
      Hsu, Qi, Brown 2019, arXiv:1909.06335 (FedAvgM).
    """

    beta: float = 0.9
    eta: float = 1.0
    local: LocalWork = field(default_factory=LocalWork)
    weighting: Weighting = "examples"

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise SettingError("beta", f"must be at least 0 and below 1, got {self.beta}")
        if not self.eta > 0:
            raise SettingError("eta", f"must be more than 0, got {self.eta}")

    def init(self, params: Params) -> FedAvgMState:
        """The model before training, at rest."""
        return FedAvgMState(params, velocity=params.zeros_like())

    def local_work(self, round_number: int) -> LocalWork:
        """The same in every round."""
        return self.local

    def step(self, state: FedAvgMState, aggregate: Aggregate) -> FedAvgMState:
        """Speed up along the mean delta, and move."""
        velocity = self.beta * state.velocity + aggregate.delta
        return FedAvgMState(state.params + self.eta * velocity, velocity)
