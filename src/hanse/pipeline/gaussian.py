"""Central differential privacy: Gaussian noise, once, on the sum of clipped updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PrivacyError, SettingError
from hanse.core.params import Params
from hanse.core.protocols import Clips
from hanse.privacy.events import Event, Gaussian


@dataclass(frozen=True, kw_only=True)
class CentralGaussian:
    """Adds `N(0, (z_Δ C)²)` to each element of the sum of updates of norm at most C.

    All that a round releases together is as private as one Gaussian mechanism with noise multiplier z: where clients
    also tell whether they were below C (a number in ±1/2, summed with noise of standard deviation σ_b), the vectors get

        z_Δ = (z⁻² - (2 σ_b)⁻²)^(-1/2)

    Args:
      noise_multiplier: z, standard deviation over sensitivity, dimensionless, ≥ 0; 0 is no privacy at all. None takes
        what the budget allows.

    References:
      McMahan et al. 2018, arXiv:1710.06963, section 3. Andrew et al. 2021, arXiv:1905.03871, theorem 1 (z_Δ).
    """

    noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        if self.noise_multiplier is not None and not 0 <= self.noise_multiplier < math.inf:
            raise SettingError("noise_multiplier", f"must be 0 or more, got {self.noise_multiplier}")

    def with_noise(self, noise_multiplier: float) -> CentralGaussian:
        """The same with noise multiplier z."""
        return replace(self, noise_multiplier=noise_multiplier)

    def event(self, told: Sequence[float]) -> Event:
        """One Gaussian release of noise multiplier z, what clips tell included."""
        z = self._known()
        if z and told:
            vector_multiplier(z, tuple(told))
        return Gaussian(noise_multiplier=z)

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        """The sum with noise."""
        z = self._known()
        if not z:
            return total
        told = {name: share * total.divisor for name, share in clip.tells.items()}
        std = vector_multiplier(z, tuple(told.values())) * clip.sensitivity

        def noisy(name: str, vector: Params) -> Params:
            scale = told.get(name, std)
            return vector.with_vector(vector.numpy() + rng.normal(scale=scale, size=vector.spec.size))

        return replace(
            total,
            noise_stddev=std,
            delta=noisy("", total.delta),
            extras={name: noisy(name, vector) for name, vector in sorted(total.extras.items())},
        )

    def _known(self) -> float:
        if self.noise_multiplier is None:
            raise PrivacyError(
                "the noise of the Gaussian mechanism was never settled",
                hint="give it a noise_multiplier, or the job a [privacy] budget",
            )
        return self.noise_multiplier


def vector_multiplier(noise_multiplier: float, told: tuple[float, ...]) -> float:
    """z_Δ: the noise multiplier of the vectors, so that all that is released together has z.

    Args:
      noise_multiplier: z, > 0.
      told: σ_b of each number in ±1/2 that is released beside them.

    Raises:
      PrivacyError: These numbers alone give away more than z allows.

    >>> round(vector_multiplier(1.0, (5.0,)), 4)
    1.005
    """
    rest = noise_multiplier**-2 - sum((2 * std) ** -2 if std else math.inf for std in told)
    if not rest > 0:
        raise PrivacyError(
            f"bit_noise is too small for a noise multiplier of {noise_multiplier:.4g}: what clients tell of their "
            f"norms gets noise of standard deviation {min(told):.4g}",
            hint="enlarge bit_noise, or the cohort",
        )
    return 1 / math.sqrt(rest)
