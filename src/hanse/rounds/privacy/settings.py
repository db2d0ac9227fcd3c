"""`PrivacySettings`: what a job promises to those whose data it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hanse.core.errors import SettingError, did_you_mean
from hanse.pipeline.mechanism import AddsNoise
from hanse.privacy.budget import Budget, check_delta

Unit = Literal["client", "example"]
"""Who is protected."""


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """Differential privacy: central, towards whoever receives the models, or local, towards the server too.

    Args:
      unit: Who is protected: ``"client"``, with all examples that it holds, or each ``"example"`` of a client, towards
        everybody but that client.
      mechanism: How the sum is made private at the server, which itself sees clipped updates; for examples, how
        clients' own steps are, ``"dp_sgd"``. None where each client adds noise to its own report, by one of
        `pipeline.stages`.
      budget: What the run may cost, `epsilon` and `delta`. It settles the mechanism's noise, or checks what is given.
      delta: Where there is no budget: the delta at which epsilon is told, in (0, 1).
    """

    mechanism: AddsNoise | None = None
    unit: Unit = "client"
    budget: Budget | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            hint = did_you_mean(str(self.unit), get_args(Unit))
            raise SettingError("unit", f'must be "client" or "example", got {self.unit!r}', hint=hint)
        if self.delta is not None:
            check_delta(self.delta)

    @property
    def at_delta(self) -> float | None:
        """The delta at which epsilon is told."""
        return self.budget.delta if self.budget is not None else self.delta
