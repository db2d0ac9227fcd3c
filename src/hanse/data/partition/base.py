"""What a partitioner is, and what it makes: which client holds which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples

Transform = Callable[[str, Examples], Examples]
"""Changes one client's examples when they are read: `(client, examples) -> examples`."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Which client holds which rows; rows of all clients lie in one array, so a million clients are cheap.

    Args:
      clients: Client ids, in order, each once.
      rows: Row numbers of all clients, one after the other: `[m]` of int64.
      offsets: Client i holds `rows[offsets[i]:offsets[i + 1]]`: `[num_clients + 1]` of int64.
      transform: Applied to a client's examples when they are read (feature noise), or None.
    """

    clients: Sequence[str]
    rows: np.ndarray
    offsets: np.ndarray
    transform: Transform | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.clients) + 1 or self.offsets[-1] != len(self.rows):
            raise DataError("a partition's offsets do not match its clients and rows")
        if len(self._position) != len(self.clients):
            raise DataError("a client id stands twice in a partition")

    @staticmethod
    def from_lists(
        lists: Iterable[np.ndarray], *, clients: Sequence[str] | None = None, transform: Transform | None = None
    ) -> Partition:
        """From one array of row numbers for each client; ids default to ``client-0``, ``client-1``, …"""
        parts = [np.asarray(part, dtype=np.int64) for part in lists]
        ids = client_names(len(parts)) if clients is None else clients
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        rows = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return Partition(ids, rows, offsets, transform)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {client: i for i, client in enumerate(self.clients)}

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each client: `[num_clients]` of int64."""
        return np.diff(self.offsets)

    def rows_of(self, client: str) -> np.ndarray:
        """Row numbers of one client, a view.

        Raises:
          DataError: No client of that id.
        """
        try:
            i = self._position[client]
        except KeyError:
            raise DataError(f"no client `{client}` in this partition of {len(self.clients)}") from None
        return self.rows[self.offsets[i] : self.offsets[i + 1]]


class Partitioner(Protocol):
    """Shares the training rows of a data set out among clients, the same way for the same seed."""

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Raises `DataError` where the data set can't be shared out so."""
        ...


def client_names(num_clients: int) -> list[str]:
    """``client-0`` … ``client-<n-1>``."""
    return [f"client-{i}" for i in range(num_clients)]
