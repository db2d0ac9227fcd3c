"""The code that masks are shared by: any `needed` shares give the mask, any `private` ones tell nothing of it.

A mask of d numbers is cut into U - T pieces; with T pieces of noise they are the values of a polynomial of degree
U - 1 at the points N + 1 to N + U. Holder j gets its value at j + 1. The code is linear, so shares of many masks add up
to shares of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hanse.core.random_bytes import RandomBytes, uniform_below
from hanse.secagg.light.mersenne import PRIME, lagrange, product


@dataclass(frozen=True)
class LagrangeCode:
    """For masks of one length among one group.

    Args:
      holders: N.
      private: T: so many shares tell nothing, 0 ≤ T < U.
      needed: U ≤ N: so many open.
      length: d, numbers in a mask.
    """

    holders: int
    private: int
    needed: int
    length: int

    @property
    def share_length(self) -> int:
        """Numbers in a share: ⌈d / (U - T)⌉."""
        return -(-self.length // (self.needed - self.private))

    def draw(self, source: RandomBytes) -> tuple[np.ndarray, np.ndarray]:
        """A uniform mask, `int64[d]`, and everybody's shares of it, `int64[N, share_length]`."""
        size = self.share_length
        pieces = uniform_below(source.draw, PRIME, self.needed * size).reshape(self.needed, size)
        mask = pieces[: self.needed - self.private].reshape(-1)[: self.length]
        return mask, product(_encoder(self.holders, self.needed), pieces)

    def open(self, holders: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """The mask from `needed` different holders' shares, `int64[U, share_length]`."""
        pieces = self.needed - self.private
        points = self.holders + 1 + np.arange(pieces)
        return product(lagrange(holders + 1, points), shares).reshape(-1)[: self.length]


@lru_cache(maxsize=8)
def _encoder(holders: int, needed: int) -> np.ndarray:
    return lagrange(holders + 1 + np.arange(needed), 1 + np.arange(holders))
