"""Mixing: rows are averaged with some others before a rule sees them, so that those of unlike clients look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.core.errors import SettingError


class Mixer(Protocol):
    """What stands in front of a rule."""

    def num_rows(self, rows: int) -> int:
        """How many mixtures it makes of so many rows."""
        ...

    def matrix(self, rows: Rows, *, attackers: int, rng: np.random.Generator) -> np.ndarray:
        """`[m, n]`: the mixtures' weights, of each with the sum 1; no more of them than `attackers` may be anything."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bucketing:
    """Rows in random buckets of `size`; each bucket's mean goes on.

    Each attacker spoils one bucket at most, so as many mixtures may be anything as rows; but there are fewer of them.

    Args:
      size: s, rows of a bucket, ≥ 1; the last one may have fewer. 1 changes nothing but the order.

    References:
      Karimireddy, He, Jaggi 2022, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR,
      algorithm 1.
    """

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SettingError("size", f"must be at least 1, got {self.size}")

    def num_rows(self, rows: int) -> int:
        """⌈n / s⌉.

        >>> Bucketing(size=2).num_rows(5)
        3
        """
        return -(-rows // self.size)

    def matrix(self, rows: Rows, *, attackers: int, rng: np.random.Generator) -> np.ndarray:
        """As `Mixer.matrix`."""
        found = np.zeros((self.num_rows(len(rows)), len(rows)))
        order = rng.permutation(len(rows))
        for i in range(len(found)):
            bucket = order[i * self.size : (i + 1) * self.size]
            found[i, bucket] = 1 / len(bucket)
        return found


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours:
    """Each row becomes the mean of the n − f rows nearest to it, itself among them.

    References:
      Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan 2023, "Fixing by mixing: a recipe for optimal Byzantine ML
      under heterogeneity", AISTATS, algorithm 2.
    """

    def num_rows(self, rows: int) -> int:
        """As many as before."""
        return rows

    def matrix(self, rows: Rows, *, attackers: int, rng: np.random.Generator) -> np.ndarray:
        """As `Mixer.matrix`; of rows that are equally near, the first count."""
        count = len(rows) - attackers
        nearest = np.argsort(rows.squared_distances, axis=1, kind="stable")[:, :count]
        found = np.zeros((len(rows), len(rows)))
        np.put_along_axis(found, nearest, 1 / count, axis=1)
        return found
