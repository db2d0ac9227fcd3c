"""LocalOnly: every client trains for itself; the baseline that joining has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hanse.core.aggregate import Aggregate
from hanse.core.local_work import LocalWork
from hanse.core.params import Params
from hanse.core.protocols import Weighting
from hanse.strategies.state import ModelState


@dataclass(frozen=True, kw_only=True)
class LocalOnly:
    """Each client keeps its whole model between rounds; nothing is broadcast, uploaded or averaged.

    All start from the same initial weights. After T rounds of E epochs each client has trained T · E
    epochs on its own examples, as much as it does in a federated run with everybody in each round.

    Args:
      local: What clients do in each round.
    """

    local: LocalWork = field(default_factory=LocalWork)

    @property
    def weighting(self) -> Weighting:
        """Of no consequence: there is nothing to average."""
        return "examples"

    def init(self, params: Params) -> ModelState:
        """No shared tensors."""
        return ModelState(params)

    def local_work(self, round_number: int) -> LocalWork:
        """`local`, with every tensor kept on the client."""
        return replace(self.local, personal=("*",))

    def step(self, state: ModelState, aggregate: Aggregate) -> ModelState:
        """Nothing changes on the server."""
        return state
