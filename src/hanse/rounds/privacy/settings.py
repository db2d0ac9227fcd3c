"""`PrivacySettings`: what a job promises to those whose data it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hanse.pipeline.mechanism import Mechanism
from hanse.privacy.budget import Budget


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """Differential privacy: central, towards whoever receives the models, or local, towards the server too.

    Args:
      unit: Who is protected: ``"client"``, with all examples that it holds.
      mechanism: How the sum is made private at the server, which itself sees clipped updates. None where each client
        adds noise to its own report, by one of `pipeline.stages`.
      budget: What the run may cost, `epsilon` and `delta`. It settles the mechanism's noise, or checks what is given.
      delta: Where there is no budget: the delta at which epsilon is told, in (0, 1).
    """

    mechanism: Mechanism | None = None
    unit: Literal["client"] = "client"
    budget: Budget | None = None
    delta: float | None = None

    @property
    def at_delta(self) -> float | None:
        """The delta at which epsilon is told."""
        return self.budget.delta if self.budget is not None else self.delta
