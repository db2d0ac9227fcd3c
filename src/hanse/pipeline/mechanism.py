"""`AddsNoise`: where a run's noise is added; `Mechanism`: to a sum of bounded updates, before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.protocols import Clips
from hanse.privacy.events import Event


class AddsNoise(Protocol):
    """What a job names as its mechanism."""

    @property
    def noise_multiplier(self) -> float | None:
        """Standard deviation of the noise over the sensitivity; None where a budget is to say it."""
        ...

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same with this much noise."""
        ...


@runtime_checkable
class Mechanism(AddsNoise, Protocol):
    """Central differential privacy: the server sees sums of updates, and makes them private before it uses them."""

    def event(self, told: Sequence[float]) -> Event:
        """What one release is, for an accountant: all of it, beside what clips tell.

        Args:
          told: Standard deviations of the noise on sums of numbers in ±1/2 that clients tell beside their vectors.

        Raises:
          PrivacyError: It can't be as private as it is to be.
        """
        ...

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        """The sum with noise.

        Args:
          total: Of a `sum`; its divisor does not depend on who answered.
          clip: Says how far one client can move it.
          rng: From the operating system, unless the run is a simulation.
        """
        ...
