"""`LabelFlip` and `NoisyLabels`: training on wrong classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.attacks.boosted import Boosted
from hanse.attacks.counts import check_share, count_of
from hanse.core.errors import PipelineError, SettingError
from hanse.data.examples import Examples


@dataclass(frozen=True, kw_only=True)
class LabelFlip(Boosted):
    """Members train on examples of one class as if they were of another; without classes named, all are mirrored.

    Mirrored: class y of K becomes K − 1 − y. With a target alone, every example is taken for it.

    Args:
      source: Class whose examples are relabelled, ≥ 0; None for all of them.
      target: Class they get, ≥ 0; None for the mirrored one.
      share: Of the examples concerned, in [0, 1], how many.
      boost: What a member's update is multiplied by, > 0.

    References:
      Tolpegin, Truex, Gursoy, Liu 2020, "Data poisoning attacks against federated learning systems", ESORICS (from
      a source to a target class).
      Fang, Cao, Jia, Gong 2020, "Local model poisoning attacks to Byzantine-robust federated learning", USENIX
      Security, its label flipping (mirrored).
    """

    source: int | None = None
    target: int | None = None
    share: float = 1.0
    boost: float = 1.0

    def __post_init__(self) -> None:
        self.check_boost()
        for name, value in (("source", self.source), ("target", self.target)):
            if value is not None and value < 0:
                raise SettingError(name, f"must be at least 0, got {value}")
        if self.source is not None and self.target is None:
            raise SettingError("target", "must say which class the examples of source are to get")
        if self.source is not None and self.source == self.target:
            raise SettingError("target", f"must be another class than source, {self.source}")
        check_share("share", self.share)

    def poison(
        self, examples: Examples, *, member: int, num_members: int, num_classes: int, rng: np.random.Generator
    ) -> Examples:
        """As `Poisons.poison`."""
        check_labels(examples, "LabelFlip")
        for name, value in (("source", self.source), ("target", self.target)):
            if value is not None:
                check_class(name, value, num_classes)
        y = examples.y.copy()
        there = (y >= 0) & (y < num_classes) if self.source is None else y == self.source
        chosen = _drawn(np.flatnonzero(there), self.share, rng)
        y.flat[chosen] = num_classes - 1 - y.flat[chosen] if self.target is None else self.target
        return Examples(examples.x, y)


@dataclass(frozen=True, kw_only=True)
class NoisyLabels(Boosted):
    """A share of each member's examples gets another class, at random and uniformly: carelessness rather than malice.

    Args:
      share: Of the examples, in [0, 1].
      boost: What a member's update is multiplied by, > 0.
    """

    share: float = 0.5
    boost: float = 1.0

    def __post_init__(self) -> None:
        self.check_boost()
        check_share("share", self.share)

    def poison(
        self, examples: Examples, *, member: int, num_members: int, num_classes: int, rng: np.random.Generator
    ) -> Examples:
        """As `Poisons.poison`; where there is one class alone, nothing changes."""
        check_labels(examples, "NoisyLabels")
        y = examples.y.copy()
        if num_classes > 1:
            chosen = _drawn(np.flatnonzero((y >= 0) & (y < num_classes)), self.share, rng)
            shift = rng.integers(1, num_classes, size=len(chosen))
            y.flat[chosen] = (y.flat[chosen].astype(np.int64) + shift) % num_classes
        return Examples(examples.x, y)


def check_labels(examples: Examples, attack: str) -> None:
    """Whether targets are classes.

    Raises:
      PipelineError: They are numbers, as in regression.
    """
    if examples.y.dtype.kind not in "iu":
        raise PipelineError(
            f"attack `{attack}` gives examples another class, and their targets are of type {examples.y.dtype}",
            hint="use it with classification, or an attack on updates",
        )


def check_class(name: str, value: int, num_classes: int) -> None:
    """Whether there is such a class; raises `SettingError`."""
    if not 0 <= value < num_classes:
        raise SettingError(name, f"must be one of the classes 0 to {num_classes - 1}, got {value}")


def _drawn(positions: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(positions)[: count_of(share, len(positions))]
