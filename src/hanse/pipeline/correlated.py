"""Central differential privacy with noise that partly cancels itself from round to round: the tree, and bands.

What a strategy like FedAvg makes of rounds are prefix sums of what they release. Independent noise adds up in these;
noise of one round that takes part of the earlier rounds' back adds up far less, at the same privacy. No sampling is
needed for it, but limits on how often, and how close together, a client takes part.

What a job names are the frozen values here. They hold no noise: a run derives that from a key of its own, and puts
`ReleasedRound` in their place for each round (`hanse.rounds.privacy.run_noise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PrivacyError, SettingError
from hanse.core.params import Params
from hanse.core.protocols import Clips
from hanse.pipeline.mechanism import Mechanism
from hanse.privacy.banded import Draw, Error, optimal_banded
from hanse.privacy.events import CorrelatedGaussian, Event
from hanse.privacy.participation import Participation
from hanse.privacy.tree import TreeAggregation


class Factorisation(Protocol):
    """How rounds' noise hangs together, under limits on participation."""

    @property
    def sensitivity(self) -> float:
        """Largest L2 change of what the noise hides, for contributions of norm 1, over the whole run."""
        ...

    def event(self, noise_multiplier: float) -> CorrelatedGaussian:
        """What the whole run costs, once."""
        ...

    def prefix_variances(self) -> np.ndarray:
        """Variance of the noise in the sum of the first t rounds, for fresh noise of variance 1, `[n]`."""
        ...

    def init(self) -> Any:
        """The state before the first round."""
        ...

    def step(self, state: Any, draw: Draw) -> tuple[np.ndarray, Any]:
        """The noise of the next round's sum, and the state after it; both are secret."""
        ...


@runtime_checkable
class CorrelatesRounds(Mechanism, Protocol):
    """A mechanism whose noise hangs together over rounds, so that it is accounted for once, for all of them.

    Its noise multiplier is that of fresh noise over the clip norm.
    """

    def factorised(self, participation: Participation) -> Factorisation:
        """The factorisation for a run.

        Raises:
          PrivacyError: It can't be had under these limits.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TreeNoise:
    """DP-FTRL's noise: each round's sum gets the difference of two prefix sums over a binary tree of rounds.

    Args:
      noise_multiplier: z, standard deviation of a tree node's noise over the clip norm, ≥ 0; 0 is no privacy at all.
        None takes what the budget allows.
      restart_every: Rounds after which a new tree begins, ≥ 1; None is one tree for all rounds. With as many rounds as
        lie between two rounds of one client, it is never twice in one tree.

    References:
      Kairouz et al. 2021, arXiv:2103.00039, algorithm 1 and appendix B (the estimates that use all of the tree).
    """

    noise_multiplier: float | None = None
    restart_every: int | None = None

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        if self.restart_every is not None and self.restart_every < 1:
            raise SettingError("restart_every", f"must be at least 1 round, got {self.restart_every}")

    def with_noise(self, noise_multiplier: float) -> TreeNoise:
        """The same with noise multiplier z."""
        return replace(self, noise_multiplier=noise_multiplier)

    def factorised(self, participation: Participation) -> TreeAggregation:
        """The tree over a run's rounds."""
        return TreeAggregation(participation=participation, restart_every=self.restart_every)

    def event(self, told: Sequence[float]) -> Event:
        """Refused: a round is no release of its own."""
        raise _not_alone()

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        """Refused: which noise it is depends on the rounds before."""
        raise _not_alone()


@dataclass(frozen=True, kw_only=True)
class BandedNoise:
    """Noise by a banded Toeplitz matrix factorisation: each round takes part of the last b - 1 rounds' noise back.

    Args:
      bands: b, from 1 (independent noise) to the rounds that lie between two rounds of one client. The server keeps
        b - 1 vectors of noise.
      noise_multiplier: z, standard deviation of a round's fresh noise over the clip norm, ≥ 0; 0 is no privacy at all.
        None takes what the budget allows.
      error: What is made small: the mean over all rounds of the variance in their prefix sums, or the largest.

    References:
      Choquette-Choo et al. 2023, arXiv:2306.08153, section 4.
    """

    bands: int
    noise_multiplier: float | None = None
    error: Error = "mean"

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        if self.bands < 1:
            raise SettingError("bands", f"must be at least 1, got {self.bands}")
        if self.error not in ("mean", "max"):
            raise SettingError("error", f'must be "mean" or "max", got "{self.error}"')

    def with_noise(self, noise_multiplier: float) -> BandedNoise:
        """The same with noise multiplier z."""
        return replace(self, noise_multiplier=noise_multiplier)

    def factorised(self, participation: Participation) -> Factorisation:
        """The factorisation with the least error for a run."""
        return optimal_banded(participation, bands=self.bands, error=self.error)

    def event(self, told: Sequence[float]) -> Event:
        """Refused: a round is no release of its own."""
        raise _not_alone()

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        """Refused: which noise it is depends on the rounds before."""
        raise _not_alone()


@dataclass(frozen=True, kw_only=True)
class ReleasedRound:
    """A mechanism for one round of a run: adds the round's noise, whatever generator it is given.

    Args:
      noise_multiplier: z, ≥ 0.
      noise: From a number of elements to the round's noise, for fresh noise of variance 1, `[n]`. Secret.
    """

    noise_multiplier: float
    noise: Callable[[int], np.ndarray]

    def with_noise(self, noise_multiplier: float) -> ReleasedRound:
        """The same with noise multiplier z."""
        return replace(self, noise_multiplier=noise_multiplier)

    def event(self, told: Sequence[float]) -> Event:
        """Refused: a round is no release of its own."""
        raise _not_alone()

    def release(self, total: Aggregate, clip: Clips, rng: np.random.Generator) -> Aggregate:
        """The sum with the round's noise; all its vectors are one, as they are for the clip."""
        if not self.noise_multiplier:
            return total
        std = self.noise_multiplier * clip.sensitivity
        names = sorted(total.extras)
        vectors = [total.delta, *(total.extras[name] for name in names)]
        noise = std * self.noise(sum(vector.spec.size for vector in vectors))
        ends = np.cumsum([vector.spec.size for vector in vectors])[:-1]
        noisy: list[Params] = [
            vector.with_vector(vector.numpy() + part)
            for vector, part in zip(vectors, np.split(noise, ends), strict=True)
        ]
        # whatever rounds before and after have of it: nobody should reckon with one round's alone
        return replace(total, noise_stddev=None, delta=noisy[0], extras=dict(zip(names, noisy[1:], strict=True)))


def _check_noise(noise_multiplier: float | None) -> None:
    if noise_multiplier is not None and not 0 <= noise_multiplier < math.inf:
        raise SettingError("noise_multiplier", f"must be 0 or more, got {noise_multiplier}")


def _not_alone() -> PrivacyError:
    return PrivacyError(
        "correlated noise belongs to all rounds of a run together: one round has neither a cost nor noise of its own",
        hint="run it by a job with a [privacy] table, or by hanse.simulation",
    )
