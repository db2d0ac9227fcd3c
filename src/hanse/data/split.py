"""`Split`: which of a client's rows it trains on, and which it keeps back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.core.randomness import stream

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Fractions of each client's rows kept back from training; what is left is trained on.

    Args:
      validation: Fraction in [0, 1), dimensionless.
      test: Fraction in [0, 1), dimensionless; `validation + test < 1`.
      stratify: Keep each client's class proportions in every part, as far as whole rows allow.

    Raises:
      DataError: The fractions leave nothing to train on.
    """

    validation: float = 0.0
    test: float = 0.0
    stratify: bool = True

    def __post_init__(self) -> None:
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise DataError(
                f"a split into validation = {self.validation} and test = {self.test} leaves nothing to train on",
                hint="both are fractions from 0 to 1, and together less than 1",
            )

    @property
    def held_out(self) -> frozenset[SplitName]:
        """The parts that clients keep back."""
        fractions: dict[SplitName, float] = {"validation": self.validation, "test": self.test}
        return frozenset(name for name, fraction in fractions.items() if fraction > 0)

    @property
    def keeps_all(self) -> bool:
        """Whether every row is trained on."""
        return self.validation == 0 and self.test == 0


def held_back(counts: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """How many rows go into validation and into test, for clients of `counts` rows.

    Fractions are rounded to the nearest whole row (halves to the even one). A client that would be left
    without a training row gets one back from the part that was rounded up the more, so a
    client with one row trains on it.

    Args:
      counts: Rows of each client, `[num_clients]` of int64.
      split: The fractions.

    Returns:
      Two arrays `[num_clients]` of int64.

    >>> held_back(np.array([0, 1, 10]), Split(validation=0.2, test=0.3))
    (array([0, 0, 2]), array([0, 0, 3]))
    """
    exact_validation, exact_test = counts * split.validation, counts * split.test
    validation, test = np.rint(exact_validation).astype(np.int64), np.rint(exact_test).astype(np.int64)
    # both roundings together add at most one row, so at most one has to come back
    bare = (counts > 0) & (validation + test >= counts)
    from_validation = bare & (validation - exact_validation >= test - exact_test)
    return validation - from_validation, test - (bare & ~from_validation)


def split_positions(
    count: int, labels: np.ndarray | None, split: Split, seed: int, client: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions `0 … count-1` in three parts (train, validation, test), each sorted.

    With `labels` the parts keep the classes' proportions: rows are shuffled, ordered by class, and
    every part takes evenly spaced ones from a random start (systematic sampling), so that each row is
    equally likely to be kept back. A client with one example keeps it for training.

    Args:
      count: Rows of the client, at least 0.
      labels: Class of each row, `[count]`, or None to ignore classes.
      split: The fractions.
      seed: The job's seed.
      client: The client's id; clients are split independently.
    """
    everything = np.arange(count)
    if split.keeps_all or not count:
        return everything, everything[:0], everything[:0]
    rng = stream(seed, "split", client)
    order = rng.permutation(count)
    if labels is not None and split.stratify:
        order = order[np.argsort(labels[order], kind="stable")]
    num_validation, num_test = (int(part[0]) for part in held_back(np.array([count]), split))
    held = _evenly_spaced(rng, count, num_validation + num_test)
    in_test = np.zeros(len(held), dtype=bool)
    in_test[_evenly_spaced(rng, len(held), num_test)] = True
    mask = np.ones(count, dtype=bool)
    mask[held] = False
    return np.sort(order[mask]), np.sort(order[held[~in_test]]), np.sort(order[held[in_test]])


def _evenly_spaced(rng: np.random.Generator, count: int, wanted: int) -> np.ndarray:
    """`wanted` distinct positions in `0 … count-1`, evenly spaced, from a random start."""
    if wanted <= 0:
        return np.zeros(0, dtype=np.int64)
    # whole numbers throughout: exact, and the last one is (wanted * count - 1) // wanted = count - 1
    return (np.arange(wanted, dtype=np.int64) * count + int(rng.integers(count))) // wanted
