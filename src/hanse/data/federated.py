"""`FederatedDataset`: who holds what; client id to that client's data, read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hanse.core.errors import DataError, did_you_mean
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.partition.base import Partition
from hanse.data.selected import SelectedExamples
from hanse.data.split import Split, SplitName, held_back, split_positions

__all__ = ["ClientData", "FederatedDataset", "Split", "SplitName", "split_positions"]


@dataclass(frozen=True, eq=False)
class ClientData:
    """One client's examples in three parts; `validation` and `test` may be empty."""

    client: str
    train: Examples
    validation: Examples
    test: Examples

    def part(self, split: SplitName) -> Examples:
        """The examples of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


class FederatedDataset:
    """Client id to that client's data, lazily, without copying the shared arrays.

    Built by one of the class methods. Reading a client costs as much as that client's rows,
    whatever the number of clients.

    Args:
      clients: Client ids, in order.
      sizes: Training rows of each client: `[num_clients]` of int64.
      read: Makes one client's data; called each time the client is asked for.
      dataset: The data set that was shared out, or None for data that came per client.
      central_test: Examples that the server may test on, or None.
      partition: Who holds which rows of `dataset`, where that is how it came about.
      held_out: Which parts clients keep back from training.
      root: Training examples that the server has for itself, or None.

    Raises:
      DataError: There is no client, or an id stands twice.
    """

    def __init__(
        self,
        clients: Sequence[str],
        sizes: np.ndarray,
        read: Callable[[str], ClientData],
        *,
        dataset: Dataset | None = None,
        central_test: Examples | None = None,
        partition: Partition | None = None,
        held_out: frozenset[SplitName] = frozenset(),
        root: Examples | None = None,
    ) -> None:
        if not len(clients):
            raise DataError("a federation needs at least one client")
        self.clients = clients
        self.sizes = sizes
        self.dataset = dataset
        self.central_test = central_test
        self.shared_out = partition
        self.held_out = held_out
        self.root = root
        self._read = read
        self._position = {client: i for i, client in enumerate(clients)}
        if len(self._position) != len(clients):
            raise DataError("a client id stands twice in a federation")

    @classmethod
    def partition(
        cls,
        dataset: Dataset,
        partition: Partition,
        *,
        split: Split | None = None,
        seed: int = 0,
        root: Examples | None = None,
    ) -> FederatedDataset:
        """Share `dataset` out as `partition` says; each client's rows are split by `split`.

        The official test set of `dataset`, if any, becomes `central_test`. Where the partition gives
        clients test rows of their own, a client's test part is what `split` keeps back and then those.
        """
        chosen = split or Split()
        _check_rows(partition.rows, len(dataset.train), dataset.name)
        return cls(
            partition.clients,
            _training_sizes(partition.sizes, chosen),
            _PartitionReader(dataset, partition, chosen, seed),
            dataset=dataset,
            central_test=dataset.test,
            partition=partition,
            held_out=chosen.held_out | (frozenset() if partition.test_rows is None else frozenset[SplitName]({"test"})),
            root=root,
        )

    @classmethod
    def from_clients(
        cls, clients: Mapping[str, ClientData], *, central_test: Examples | None = None, dataset: Dataset | None = None
    ) -> FederatedDataset:
        """From data that each client brings already split."""
        sizes = np.array([len(data.train) for data in clients.values()], dtype=np.int64)
        names: tuple[SplitName, ...] = ("validation", "test")
        held_out = frozenset(name for name in names if any(len(data.part(name)) for data in clients.values()))
        read = dict(clients).__getitem__
        return cls(list(clients), sizes, read, dataset=dataset, central_test=central_test, held_out=held_out)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        split: Split | None = None,
        seed: int = 0,
        central_test: Examples | None = None,
    ) -> FederatedDataset:
        """From one pair `(x, y)` for each client, split by `split`; whole-number targets are kept in proportion."""
        data = {client: Examples(np.asarray(x), np.asarray(y)) for client, (x, y) in arrays.items()}
        chosen = split or Split()
        rows = np.array([len(own) for own in data.values()], dtype=np.int64)
        reader = _ArraysReader(data, chosen, seed)
        sizes = _training_sizes(rows, chosen)
        return cls(list(data), sizes, reader, central_test=central_test, held_out=chosen.held_out)

    def __len__(self) -> int:
        return len(self.clients)

    def __contains__(self, client: object) -> bool:
        return client in self._position

    def position(self, client: str) -> int:
        """Where in `clients` a client stands.

        Raises:
          DataError: No client of that id.
        """
        return self._where(client)

    def client(self, client: str) -> ClientData:
        """Read one client's data.

        Raises:
          DataError: No client of that id.
        """
        self._where(client)
        return self._read(client)

    def num_examples(self, client: str) -> int:
        """Training rows of one client, without reading them.

        Raises:
          DataError: No client of that id.
        """
        return int(self.sizes[self._where(client)])

    def pooled(self, name: str = "pooled") -> FederatedDataset:
        """One client that holds everybody's rows: the federation that nobody may build, as a baseline."""
        total = np.array([int(np.sum(self.sizes))], dtype=np.int64)
        if isinstance(self._read, _PartitionReader) and self._read.partition.transform is None:
            reader: Callable[[str], ClientData] = _PooledRowsReader(self.clients, self._read)
        else:
            reader = _PooledReader(self.clients, self._read)
        return FederatedDataset(
            [name], total, reader, dataset=self.dataset, central_test=self.central_test, held_out=self.held_out
        )

    def _where(self, client: str) -> int:
        try:
            return self._position[client]
        except KeyError:
            few = len(self) <= 100
            hint = did_you_mean(client, self.clients) if few else f"ids look like `{self.clients[0]}`"
            raise DataError(f"no client `{client}` in this federation of {len(self):,}", hint=hint) from None


# Readers are values and not closures, so that a federation can be sent to another process.


@dataclass(frozen=True, eq=False)
class _PartitionReader:
    dataset: Dataset
    partition: Partition
    split: Split
    seed: int

    def __call__(self, client: str) -> ClientData:
        rows, own_test, transform = self.rows(client), self.own_test(client), self.partition.transform
        if transform is None:
            return self.take(client, rows, own_test)
        # one call for all rows of the client: noise drawn per part would repeat itself in every part
        parts = self.take(client, rows, own_test)
        changed = transform(client, Examples.concatenate([parts.train, parts.validation, parts.test]))
        first, second = len(parts.train), len(parts.train) + len(parts.validation)
        cuts = (slice(0, first), slice(first, second), slice(second, None))
        return ClientData(client, *(changed.take(cut) for cut in cuts))

    def rows(self, client: str) -> list[np.ndarray]:
        """Training rows of the data set that the client trains, validates and tests on."""
        rows, data = self.partition.rows_of(client), self.dataset
        if self.split.keeps_all:
            return [rows, rows[:0], rows[:0]]
        labels = data.train.y[rows] if data.target == "classes" and data.train.y.ndim == 1 else None
        return [rows[part] for part in split_positions(len(rows), labels, self.split, self.seed, client)]

    def own_test(self, client: str) -> np.ndarray:
        """Rows of the official test set that are the client's own."""
        return self.partition.test_rows_of(client)

    def take(self, client: str, rows: Sequence[np.ndarray], own_test: np.ndarray) -> ClientData:
        """Read these rows, untransformed."""
        train, validation, kept_back = (SelectedExamples(self.dataset.train, part) for part in rows)
        test: Examples = kept_back
        if len(own_test) and self.dataset.test is not None:
            test = Examples.concatenate([test, SelectedExamples(self.dataset.test, own_test)])
        return ClientData(client, train, validation, test)


@dataclass(frozen=True, eq=False)
class _ArraysReader:
    data: Mapping[str, Examples]
    split: Split
    seed: int

    def __call__(self, client: str) -> ClientData:
        own = self.data[client]
        labels = own.y if own.y.ndim == 1 and own.y.dtype.kind in "iu" else None
        parts = split_positions(len(own), labels, self.split, self.seed, client)
        return ClientData(client, *(own.take(part) for part in parts))


@dataclass(frozen=True, eq=False)
class _PooledReader:
    clients: Sequence[str]
    read: Callable[[str], ClientData]

    def __call__(self, name: str) -> ClientData:
        everyone = [self.read(client) for client in self.clients]
        join = Examples.concatenate
        return ClientData(
            name,
            join([d.train for d in everyone]),
            join([d.validation for d in everyone]),
            join([d.test for d in everyone]),
        )


@dataclass(frozen=True, eq=False)
class _PooledRowsReader:
    """The same for rows of one data set: row numbers are joined, and the rows copied once."""

    clients: Sequence[str]
    read: _PartitionReader

    def __call__(self, name: str) -> ClientData:
        parts = zip(*(self.read.rows(client) for client in self.clients), strict=True)
        own_tests = [self.read.own_test(client) for client in self.clients]
        return self.read.take(name, [np.concatenate(part) for part in parts], np.concatenate(own_tests))


def _training_sizes(rows: np.ndarray, split: Split) -> np.ndarray:
    validation, test = held_back(rows, split)
    return np.asarray(rows - validation - test)


def _check_rows(rows: np.ndarray, count: int, name: str) -> None:
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise DataError(f"a partition names row {int(rows.max())}, but data set `{name}` has {count} training rows")
