"""FedProx: FedAvg with a proximal term in the local objective."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hanse.core.aggregate import Aggregate
from hanse.core.corrections import Proximal
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.state import ModelState


@dataclass(frozen=True, kw_only=True)
class FedProx:
    """FedAvg whose clients minimise `F_k(w) + (μ/2) ‖w − w_t‖²`.

    Each local gradient becomes `∇F_k(w) + μ (w − w_t)`; the server does what FedAvg does. Equals
    FedAvg when μ = 0.

    Args:
      mu: μ ≥ 0; the paper tunes it over 0.001, 0.01, 0.1, 1.
      local: What clients do; it must bring no correction of its own.
      weighting: ``"examples"`` or ``"uniform"``. The paper samples clients by their examples and then
        averages uniformly (its algorithm 2); uniform sampling with example weights has the same expectation.

    References:
      Li et al. 2020, arXiv:1812.06127, equation 2 and algorithm 2.
    """

    mu: float = 0.01
    local: LocalWork = field(default_factory=LocalWork)
    weighting: Weighting = "examples"

    def __post_init__(self) -> None:
        Proximal(mu=self.mu)  # refuses a negative μ before anything runs
        if self.local.correction is not None:
            raise SettingError("local.correction", "FedProx brings a correction of its own, the proximal term")

    def init(self, params: Params) -> ModelState:
        """The model before training."""
        return ModelState(params)

    def local_work(self, round_number: int) -> LocalWork:
        """`local` with the proximal term."""
        return replace(self.local, correction=Proximal(mu=self.mu)) if self.mu else self.local

    def step(self, state: ModelState, aggregate: Aggregate) -> ModelState:
        """Add the mean delta."""
        return ModelState(state.params + aggregate.delta)
