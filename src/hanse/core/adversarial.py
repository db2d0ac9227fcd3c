"""Perturbations: inputs moved a little, to where a model's loss is larger, to train on them or to measure with.

Only arithmetic stands here, on arrays that have the methods of torch tensors; who has a model hands in its gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Protocol

from hanse.core.errors import SettingError
from hanse.core.optimizers import Tensor

Gradient = Callable[[Tensor], Tensor]
"""The gradient of the loss with regard to the inputs, at any inputs: `[n, …]` to `[n, …]`."""

Noise = Callable[[], Tensor]
"""Numbers drawn uniformly from [-1, 1), as many as the inputs have, new ones each time: `[n, …]`."""

_FURTHER = 1.25  # a step after a random start, in radii


class Perturbation(Protocol):
    """Moves inputs to where the loss is larger. A local work trains on them, and a run measures models on them."""

    @property
    def share(self) -> float:
        """The part of each batch that is moved in training, from 0 to 1."""
        ...

    @property
    def idle(self) -> bool:
        """Whether it leaves all inputs as they are: training is plain training then."""
        ...

    @property
    def num_gradients(self) -> int:
        """Gradients with regard to the inputs that it takes."""
        ...

    def perturbed(self, x: Tensor, gradient: Gradient, noise: Noise) -> Tensor:
        """New inputs, `[n, …]`.

        Args:
          x: The inputs, `[n, …]`, which stay as they are.
          gradient: Of the loss, by the inputs.
          noise: Random numbers, always the same ones for a client and a round.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """The fast gradient sign method: one step to the edge of a cube around each input.

        x' = Π( x + ε sign(∇_x L(x, y)) )

    Π holds each number within ε of what it was, and between `low` and `high`. With a random start the gradient is taken
    at x + δ, with δ uniform in [-ε, ε], and the step from there has 1.25 ε; one step then trains about as well as PGD.

    Args:
      radius: ε, in the unit of the inputs as the model sees them, ≥ 0; 0 leaves all as it is.
      random_start: Begin at a random point of the cube.
      share: Part of each batch that is perturbed in training, from 0 to 1; drawn anew for each batch.
      low: Least number that an input may have, None without a bound. An input that is less is not moved further down.
      high: The most, likewise.

    References:
      Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572, section 4. Wong, Rice, Kolter 2020, arXiv:2001.03994, algorithm
      3 and section 4.1, for the random start; there its point may leave the inputs' range, here it may not.
    """

    radius: float
    random_start: bool = False
    share: float = 1.0
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _check(self.radius, self.share, self.low, self.high)

    @property
    def idle(self) -> bool:
        """With a radius or a share of 0."""
        return self.radius == 0 or self.share == 0

    @property
    def num_gradients(self) -> int:
        """One."""
        return 1

    def perturbed(self, x: Tensor, gradient: Gradient, noise: Noise) -> Tensor:
        """See `Perturbation`."""
        room = _Room(x, self.radius, self.low, self.high)
        start, step = (room.somewhere(noise), _FURTHER * self.radius) if self.random_start else (x, self.radius)
        return room.stepped(start, gradient, step)


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent: several small steps in a cube around each input, from a random point of it.

        x_0 = Π(x + δ),  δ uniform in [-ε, ε]        x_{t+1} = Π( x_t + α sign(∇_x L(x_t, y)) )

    Π holds each number within ε of what it was, and between `low` and `high`. The last x_t is taken. With one step
    of α ≥ ε and no random start this is `FGSM`.

    Args:
      radius: ε, in the unit of the inputs as the model sees them, ≥ 0; 0 leaves all as it is.
      step: α, in the same unit, > 0; None takes 2.5 ε over the steps, so that each point of the cube can be reached.
      steps: Steps, ≥ 1; each costs a pass forward and back.
      random_start: Begin at a random point of the cube, and not at the input.
      share: Part of each batch that is perturbed in training, from 0 to 1; drawn anew for each batch.
      low: Least number that an input may have, None without a bound. An input that is less is not moved further down.
      high: The most, likewise.

    References:
      Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083, section 2.1, in L-infinity; steps of 2.5 ε over
      their number are those of its section 5.
    """

    radius: float
    step: float | None = None
    steps: int = 7
    random_start: bool = True
    share: float = 1.0
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _check(self.radius, self.share, self.low, self.high)
        if self.step is not None and not 0 < self.step < inf:
            raise SettingError("step", f"must be more than 0 and finite, got {self.step}")
        if self.steps < 1:
            raise SettingError("steps", f"must be at least 1, got {self.steps}")

    @property
    def idle(self) -> bool:
        """With a radius or a share of 0."""
        return self.radius == 0 or self.share == 0

    @property
    def num_gradients(self) -> int:
        """One for each step."""
        return self.steps

    def perturbed(self, x: Tensor, gradient: Gradient, noise: Noise) -> Tensor:
        """See `Perturbation`."""
        room = _Room(x, self.radius, self.low, self.high)
        step = 2.5 * self.radius / self.steps if self.step is None else self.step
        moved = room.somewhere(noise) if self.random_start else x
        for _ in range(self.steps):
            moved = room.stepped(moved, gradient, step)
        return moved


def gradients_per_batch(perturbation: Perturbation | None) -> int:
    """How many gradients a batch of training costs, the step's own one included.

    >>> gradients_per_batch(None), gradients_per_batch(PGD(radius=0.1, steps=7)), gradients_per_batch(FGSM(radius=0))
    (1, 8, 1)
    """
    if perturbation is None or perturbation.idle:
        return 1
    return 1 + ceil(perturbation.share * perturbation.num_gradients)


class _Room:
    """Where inputs may be moved to: the cube around each, cut off by the inputs' range."""

    def __init__(self, x: Tensor, radius: float, low: float | None, high: float | None) -> None:
        self._x = x
        self._radius = radius
        self._least, self._most = x - radius, x + radius
        # an input outside of the range may come closer to it, and must not be thrown out of its cube
        if low is not None:
            self._least = self._least.maximum(x.clamp(max=low))
        if high is not None:
            self._most = self._most.minimum(x.clamp(min=high))

    def somewhere(self, noise: Noise) -> Tensor:
        """A random point of the cube, held within the range."""
        return self._held(self._x + self._radius * noise())

    def stepped(self, at: Tensor, gradient: Gradient, step: float) -> Tensor:
        """One step up from there."""
        return self._held(at + step * gradient(at).sign())

    def _held(self, moved: Tensor) -> Tensor:
        return moved.maximum(self._least).minimum(self._most)


def _check(radius: float, share: float, low: float | None, high: float | None) -> None:
    if not 0 <= radius < inf:
        raise SettingError("radius", f"must be at least 0 and finite, got {radius}")
    if not 0 <= share <= 1:
        raise SettingError("share", f"must be from 0 to 1, got {share}")
    for name, bound in (("low", low), ("high", high)):
        if bound is not None and not -inf < bound < inf:
            raise SettingError(name, f"must be finite, or none; got {bound}")
    if low is not None and high is not None and not low < high:
        raise SettingError("high", f"must be more than low = {low}, got {high}")
