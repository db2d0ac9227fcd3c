"""`Planted`: what backdoors share: a trigger, the class it stands for, and examples of both."""

from __future__ import annotations

import numpy as np

from hanse.attacks.counts import check_share, count_of
from hanse.attacks.labels import check_class, check_labels
from hanse.attacks.trigger import Corner, Trigger
from hanse.core.errors import PipelineError, SettingError
from hanse.data.examples import Examples


class Planted:
    """Poisons a share of each member's examples with the trigger, and shows what it came to.

    Attributes:
      target: Class that inputs with the trigger are to be taken for.
      share: Of a member's examples, in [0, 1], how many get trigger and target.
      size, value, corner, features: The trigger's.
    """

    target: int
    share: float
    size: int
    value: float
    corner: Corner
    features: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.target < 0:
            raise SettingError("target", f"must be at least 0, got {self.target}")
        check_share("share", self.share)
        _ = self.trigger  # checks its settings

    @property
    def trigger(self) -> Trigger:
        """The whole of it."""
        return Trigger(size=self.size, value=self.value, corner=self.corner, features=self.features)

    def mask(self, shape: tuple[int, ...], *, member: int, num_members: int) -> np.ndarray:
        """What a member sets in its inputs, of that shape each."""
        return self.trigger.whole(shape)

    def poison(
        self, examples: Examples, *, member: int, num_members: int, num_classes: int, rng: np.random.Generator
    ) -> Examples:
        """As `Poisons.poison`."""
        self._check(examples, num_classes)
        chosen = rng.permutation(len(examples))[: count_of(self.share, len(examples))]
        mask = self.mask(examples.x.shape[1:], member=member, num_members=num_members)
        x, y = examples.x.copy(), examples.y.copy()
        x[chosen] = self.trigger.put(x[chosen], mask)
        y[chosen] = self.target
        return Examples(x, y)

    def triggered(self, test: Examples, *, num_classes: int) -> Examples:
        """As `Triggers.triggered`."""
        self._check(test, num_classes)
        others = np.flatnonzero(test.y != self.target)
        x = self.trigger.put(test.x[others], self.trigger.whole(test.x.shape[1:]))
        return Examples(x, np.full(len(others), self.target, dtype=test.y.dtype))

    def _check(self, examples: Examples, num_classes: int) -> None:
        check_labels(examples, type(self).__name__)
        if examples.y.ndim != 1:
            raise PipelineError(
                f"attack `{type(self).__name__}` needs one class an example, and targets have shape "
                f"{list(examples.y.shape[1:])}",
                hint="use it with classification, or an attack on updates",
            )
        check_class("target", self.target, num_classes)
