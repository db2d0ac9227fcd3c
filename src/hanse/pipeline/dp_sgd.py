"""DP-SGD as a mechanism: clients' own local steps hide each of their examples, from the server too."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hanse.core.example_privacy import ExamplePrivacy


@dataclass(frozen=True, kw_only=True)
class DPSGD:
    """Each local step takes the sum of clipped per-example gradients of a random batch, and adds Gaussian noise to it.

    It protects single examples (`unit = "example"`), each client's towards everybody else. Any optimiser may use the
    gradients: with Adam it is DP-Adam.

    Args:
      clip_norm: C, L2 bound of one example's gradient, > 0.
      noise_multiplier: z, standard deviation of the noise over C, dimensionless, ≥ 0; 0 is no privacy at all. None
        takes what the budget allows, the same for all clients.

    References:
      Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """

    clip_norm: float
    noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        self.in_steps(1.0)  # refuses numbers out of their range

    def with_noise(self, noise_multiplier: float) -> DPSGD:
        """The same with noise multiplier z."""
        return replace(self, noise_multiplier=noise_multiplier)

    def in_steps(self, otherwise: float) -> ExamplePrivacy:
        """What it asks of local steps.

        Args:
          otherwise: The noise multiplier where the mechanism leaves it to a budget.
        """
        noise = self.noise_multiplier if self.noise_multiplier is not None else otherwise
        return ExamplePrivacy(clip_norm=self.clip_norm, noise_multiplier=noise)
