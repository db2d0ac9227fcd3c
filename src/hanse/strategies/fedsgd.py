"""FedSGD: one gradient step a round on the mean of the clients' gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.state import ModelState


@dataclass(frozen=True, kw_only=True)
class FedSGD:
    """Each client sends the gradient over all its examples; the server steps on their mean.

        w_{t+1} = w_t − lr · Σ_k (n_k / n) ∇F_k(w_t)

    The gradients are *averaged*, not added up. With gradients [1, 2] and [−1, −2] and equal weights the
    model stays where it is. Buffers (batch-norm statistics) have no gradient; they take over the clients' mean.

    Args:
      lr: The server's learning rate, > 0.
      batch_size: Examples that a client works on at a time, to bound its memory; the gradient is over
        all its examples whatever this is.
      weighting: ``"examples"`` as in the paper, or ``"uniform"``.

    References:
      McMahan et al. 2017, arXiv:1602.05629, section 2 (C-fraction FedSGD).
    """

    lr: float = 0.1
    batch_size: int | Literal["all"] = "all"
    weighting: Weighting = "examples"

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise SettingError("lr", f"must be more than 0, got {self.lr}")
        self.local_work(1)  # refuses a bad batch size before anything runs

    def init(self, params: Params) -> ModelState:
        """The model before training."""
        return ModelState(params)

    def local_work(self, round_number: int) -> LocalWork:
        """One full gradient at w_t, and no local step."""
        return LocalWork(upload="gradient", batch_size=self.batch_size, shuffle=False)

    def step(self, state: ModelState, aggregate: Aggregate) -> ModelState:
        """Step along the aggregate, which holds minus the mean gradient."""
        return ModelState(state.params + aggregate.delta.scale_trainable(self.lr))
