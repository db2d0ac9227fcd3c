"""What a partitioner is, and what it makes: which client holds which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples

Transform = Callable[[str, Examples], Examples]
"""Changes all of one client's examples when they are read: `(client, examples) -> examples`."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Which client holds which rows; rows of all clients lie in one array, so a million clients are cheap.

    Args:
      clients: Client ids, in order, each once.
      rows: Row numbers of all clients, one after the other: `[m]`; kept as int32 where they fit, for a million
        clients hold many.
      offsets: Client i holds `rows[offsets[i]:offsets[i + 1]]`: `[num_clients + 1]` of int64.
      transform: Applied to a client's examples when they are read (feature noise), or None.
      test_rows: Rows of the data set's official test set that belong to clients, laid out like
        `rows`; None where the test set belongs to nobody.
      test_offsets: Like `offsets`, for `test_rows`.

    Raises:
      DataError: Offsets, rows and clients do not fit together, or a client stands twice.
    """

    clients: Sequence[str] = field(repr=False)
    rows: np.ndarray = field(repr=False)
    offsets: np.ndarray
    transform: Transform | None = field(default=None, repr=False)
    test_rows: np.ndarray | None = field(default=None, repr=False)
    test_offsets: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.rows) and self.rows.dtype != np.int32 and self.rows.max() <= np.iinfo(np.int32).max:
            object.__setattr__(self, "rows", self.rows.astype(np.int32))
        for rows, offsets in ((self.rows, self.offsets), (self.test_rows, self.test_offsets)):
            if (rows is None) != (offsets is None):
                raise DataError("a partition's test rows come with test offsets, or not at all")
            if rows is None or offsets is None:
                continue
            if len(offsets) != len(self.clients) + 1 or offsets[0] != 0 or offsets[-1] != len(rows):
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
        rows = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return Partition(ids, rows, offsets_of(np.array([len(part) for part in parts], dtype=np.int64)), transform)

    @staticmethod
    def from_sizes(rows: np.ndarray, sizes: np.ndarray, *, clients: Sequence[str] | None = None) -> Partition:
        """The first `sizes[0]` rows to the first client, the next `sizes[1]` to the second, …"""
        return Partition(client_names(len(sizes)) if clients is None else clients, rows, offsets_of(sizes))

    @staticmethod
    def from_owners(owners: np.ndarray, num_clients: int, *, clients: Sequence[str] | None = None) -> Partition:
        """From the owner of every row: `[n]` of client positions, -1 for a row that nobody holds.

        >>> Partition.from_owners(np.array([1, 0, -1, 1]), 2).rows_of("client-1")
        array([0, 3], dtype=int32)
        """
        rows = np.argsort(owners, kind="stable")
        rows = rows[np.count_nonzero(owners < 0) :]
        sizes = np.bincount(owners[owners >= 0], minlength=num_clients)
        return Partition.from_sizes(rows, sizes, clients=clients)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {client: i for i, client in enumerate(self.clients)}

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each client: `[num_clients]` of int64."""
        return np.diff(self.offsets)

    def position(self, client: str) -> int:
        """Where the client stands in `clients`.

        Raises:
          DataError: No client of that id.
        """
        try:
            return self._position[client]
        except KeyError:
            raise DataError(f"no client `{client}` in this partition of {len(self.clients)}") from None

    def rows_of(self, client: str) -> np.ndarray:
        """Row numbers of one client, a view.

        Raises:
          DataError: No client of that id.
        """
        i = self.position(client)
        return self.rows[self.offsets[i] : self.offsets[i + 1]]

    def test_rows_of(self, client: str) -> np.ndarray:
        """Rows of the official test set that are this client's own, a view; empty where there are none.

        Raises:
          DataError: No client of that id.
        """
        i = self.position(client)
        if self.test_rows is None or self.test_offsets is None:
            return np.zeros(0, dtype=np.int64)
        return self.test_rows[self.test_offsets[i] : self.test_offsets[i + 1]]


class Partitioner(Protocol):
    """Shares the training rows of a data set out among clients, the same way for the same seed."""

    def __call__(self, dataset: Dataset, seed: int) -> Partition:
        """Raises `DataError` where the data set can't be shared out so."""
        ...


def client_names(num_clients: int) -> list[str]:
    """``client-0`` … ``client-<n-1>``."""
    return [f"client-{i}" for i in range(num_clients)]


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Offsets `[num_clients + 1]` of int64 from sizes `[num_clients]`.

    >>> offsets_of(np.array([2, 0, 1]))
    array([0, 2, 2, 3])
    """
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
