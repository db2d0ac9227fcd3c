"""`ExamplePrivacy`: local steps that hide each single example, as a part of `LocalWork`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class ExamplePrivacy:
    """Local steps whose gradients are sums of clipped per-example gradients, with noise.

    With a batch S drawn so that each of the client's n examples is in it with probability q = min(1, B / n),
    independently of all others, C the norm, z the noise multiplier, and B the batch size of the local work:

        g = (1 / B) (Σ_{i ∈ S} g_i · min(1, C / ‖g_i‖₂) + N(0, (z C)² I))

    What the optimiser does with g (momentum, Adam) costs nothing further. An epoch is ⌈n / B⌉ such steps.

    Args:
      clip_norm: C, in the unit of a gradient, > 0.
      noise_multiplier: z, standard deviation over C, dimensionless, ≥ 0; 0 is no privacy at all.

    References:
      Abadi et al. 2016, arXiv:1607.00133, algorithm 1; with batches of Poisson sampling, and divided by the expected
      size of a batch, which tells nothing, and not by the actual one.
    """

    clip_norm: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if not 0 < self.clip_norm < math.inf:
            raise SettingError("clip_norm", f"must be above 0 and finite, got {self.clip_norm}")
        if not 0 <= self.noise_multiplier < math.inf:
            raise SettingError("noise_multiplier", f"must be 0 or more and finite, got {self.noise_multiplier}")
