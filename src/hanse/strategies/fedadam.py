"""FedAdam: local training, then Adam at the server on the mean of the clients' deltas."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.moments import MomentState, check_decay, check_moments, first_state, moved


@dataclass(frozen=True, kw_only=True)
class FedAdam:
    """Adam's moments at the server, without a correction of their start.

    With Δ the mean of the clients' deltas, m_0 = 0 and v_0 = τ²:

        m ← β₁ m + (1 − β₁) Δ        v ← β₂ v + (1 − β₂) Δ²        w ← w + η m / (√v + τ)

    In a private run Δ carries noise of a known variance σ², by which v is too large, so that all elements come to be
    divided by about the same. With `noise_corrected` the noise's part is taken off:

        n ← β₂ n + (1 − β₂) σ²       w ← w + η m / (√max(v − n, 0) + τ)

    Both are computed from what has been released, so they cost no privacy.

    Args:
      local: What clients do; epochs, batch size, learning rate.
      lr: η, the server's learning rate, > 0: about how far an element moves in a round.
      beta1: β₁, in [0, 1).
      beta2: β₂, in [0, 1).
      tau: τ, adaptivity, in the unit of the deltas, > 0: elements whose deltas are smaller move less.
      noise_corrected: Whether the variance of privacy's noise is taken off v.
      weighting: ``"examples"``, or ``"uniform"`` as private runs need it.

    References:
      Reddi et al. 2021, arXiv:2003.00295, algorithm 2 (no bias correction there, and none here). Tang, Shpilevskiy,
      Lécuyer 2023, arXiv:2312.14334, algorithm 1 (the noise correction; theirs corrects the start of both moments too,
      and has a floor under the root in place of τ beside it).
    """

    local: LocalWork = field(default_factory=LocalWork)
    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    noise_corrected: bool = False
    weighting: Weighting = "examples"

    def __post_init__(self) -> None:
        check_moments(self.lr, self.beta1, self.tau)
        check_decay(self.beta2)

    def init(self, params: Params) -> MomentState:
        """The model before training, and moments of nothing."""
        return first_state(params, self.tau)

    def local_work(self, round_number: int) -> LocalWork:
        """`local`, in every round."""
        return self.local

    def step(self, state: MomentState, aggregate: Aggregate) -> MomentState:
        """Adam's step along the mean delta.

        Raises:
          PipelineError: The noise is to be taken off, and nobody knows how much there is.
        """
        delta = aggregate.delta.numpy()
        first = self.beta1 * state.first + (1 - self.beta1) * aggregate.delta
        second = self.beta2 * state.second.numpy() + (1 - self.beta2) * delta * delta
        noise = self._noise(state, aggregate)
        root = self.lr / (np.sqrt(np.maximum(second - noise, 0)) + self.tau)
        return replace(moved(state, aggregate, first, second, root), noise=noise)

    def _noise(self, state: MomentState, aggregate: Aggregate) -> float:
        if not self.noise_corrected:
            return 0.0
        if aggregate.noise_stddev is None:
            raise PipelineError(
                "FedAdam is to take the noise's part off its second moment, and how much noise there is in an element "
                "is not known: it spans rounds, or stages left of the clip spread it unevenly",
                hint="use noise_corrected = false",
            )
        return self.beta2 * state.noise + (1 - self.beta2) * aggregate.noise_stddev**2
