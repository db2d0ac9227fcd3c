"""Who shares masks with whom: everybody with everybody, or a ring in a random order (a Harary graph)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hanse.secagg.graph_bounds import Degree
from hanse.secagg.mask_stream import key_stream


@dataclass(frozen=True)
class Graph:
    """Neighbours by number, the same at everybody who knows the seed.

    Args:
      num_clients: n; clients have the numbers 0 to n - 1.
      degree: k and t; k = n - 1 is the complete graph, and else k is even.
      seed: 16 bytes that nobody could choose alone.
    """

    num_clients: int
    degree: Degree
    seed: bytes

    @property
    def is_complete(self) -> bool:
        """Whether all are neighbours."""
        return self.degree.neighbours >= self.num_clients - 1

    def neighbours(self, client: int) -> np.ndarray:
        """The client's neighbours in ascending order, `int64[k]`; the relation goes both ways."""
        if self.is_complete:
            return np.delete(np.arange(self.num_clients), client)
        order, place = _ring(self.num_clients, self.seed)
        half = self.degree.neighbours // 2
        steps = np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)])
        return np.sort(order[(place[client] + steps) % self.num_clients])

    def holders(self, client: int) -> np.ndarray:
        """The client and its neighbours in ascending order: who holds shares of its secrets, `int64[k + 1]`."""
        return np.sort(np.append(self.neighbours(client), client))


@lru_cache(maxsize=16)
def _ring(num_clients: int, seed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Clients in the ring's order, and each client's place in it: sorted by 64 bits of the seed's key stream."""
    order = np.argsort(key_stream(seed, 8 * num_clients).view("<u8"), kind="stable")
    place = np.empty(num_clients, dtype=np.int64)
    place[order] = np.arange(num_clients)
    return order, place
