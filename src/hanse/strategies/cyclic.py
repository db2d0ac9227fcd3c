"""CyclicTransfer: one model passed on from client to client."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.state import ModelState


@dataclass(frozen=True, kw_only=True)
class CyclicTransfer:
    """Cyclic weight transfer: each round one client trains the model and hands it to the next.

        w_{t+1} = w_k after local work, for the one client k of round t

    It is the one strategy in which a client's weights become the model, because a round has a single
    client; it refuses larger cohorts. Use it with the cohort ``{ use = "cyclic" }``. N rounds are one
    cycle over N clients.

    Args:
      local: What the client of a round does.

    References:
      Chang et al. 2018, "Distributed deep learning networks among institutions for medical imaging",
      JAMIA 25(8).
    """

    local: LocalWork = field(default_factory=LocalWork)

    #: What the job uses where it names no cohort.
    default_cohort = "cyclic"

    @property
    def max_cohort(self) -> int:
        """One client a round."""
        return 1

    @property
    def weighting(self) -> Weighting:
        """Of no consequence with one client."""
        return "uniform"

    def init(self, params: Params) -> ModelState:
        """The model before training."""
        return ModelState(params)

    def local_work(self, round_number: int) -> LocalWork:
        """`local`, in every round."""
        return self.local

    def step(self, state: ModelState, aggregate: Aggregate) -> ModelState:
        """Take over the one client's weights.

        Raises:
          PipelineError: The aggregate is of several clients.
        """
        if aggregate.num_clients != 1:
            raise PipelineError(
                f"CyclicTransfer takes one client a round; {aggregate.num_clients} delivered",
                hint='use cohort = { use = "cyclic" }',
            )
        return ModelState(state.params + aggregate.delta)
