"""`FederatedDataset`: who holds what; client id to that client's data, read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.core.randomness import stream
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.partition.base import Partition

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Fractions of each client's rows kept back from training; what is left is trained on.

    Args:
      validation: Fraction in [0, 1), dimensionless.
      test: Fraction in [0, 1), dimensionless; `validation + test < 1`.
      stratify: Keep each client's class proportions in every part, as far as whole rows allow.
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
      sizes: Training rows of each client (before `read` is called): `[num_clients]`.
      read: Makes one client's data; called each time the client is asked for.
      dataset: The data set that was shared out, or None for data that came per client.
    """

    def __init__(
        self,
        clients: Sequence[str],
        sizes: np.ndarray,
        read: Callable[[str], ClientData],
        *,
        dataset: Dataset | None = None,
        central_test: Examples | None = None,
    ) -> None:
        if not len(clients):
            raise DataError("a federation needs at least one client")
        self.clients = clients
        self.sizes = sizes
        self.dataset = dataset
        self.central_test = central_test
        self._read = read
        self._position = {client: i for i, client in enumerate(clients)}
        if len(self._position) != len(clients):
            raise DataError("a client id stands twice in a federation")

    @classmethod
    def partition(
        cls, dataset: Dataset, partition: Partition, *, split: Split | None = None, seed: int = 0
    ) -> FederatedDataset:
        """Share `dataset` out as `partition` says; each client's rows are split by `split`.

        The official test set of `dataset`, if any, becomes `central_test`.
        """
        chosen = split or Split()

        def read(client: str) -> ClientData:
            rows = partition.rows_of(client)
            parts = _split_rows(rows, dataset, chosen, seed, client)
            examples = [dataset.train.take(part) for part in parts]
            if partition.transform is not None:
                examples = [partition.transform(client, part) for part in examples]
            return ClientData(client, *examples)

        kept = 1 - chosen.validation - chosen.test
        sizes = partition.sizes if kept == 1 else np.rint(partition.sizes * kept).astype(np.int64)
        return cls(partition.clients, sizes, read, dataset=dataset, central_test=dataset.test)

    @classmethod
    def from_clients(
        cls, clients: Mapping[str, ClientData], *, central_test: Examples | None = None, dataset: Dataset | None = None
    ) -> FederatedDataset:
        """From data that each client brings already split."""
        sizes = np.array([len(data.train) for data in clients.values()], dtype=np.int64)
        return cls(list(clients), sizes, clients.__getitem__, dataset=dataset, central_test=central_test)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        split: Split | None = None,
        seed: int = 0,
        central_test: Examples | None = None,
    ) -> FederatedDataset:
        """From one pair `(x, y)` for each client, split by `split`."""
        data = {client: Examples(np.asarray(x), np.asarray(y)) for client, (x, y) in arrays.items()}
        chosen = split or Split()

        def read(client: str) -> ClientData:
            own = data[client]
            labels = own.y if own.y.ndim == 1 and own.y.dtype.kind in "iu" else None
            parts = split_positions(len(own), labels, chosen, seed, client)
            return ClientData(client, *(own.take(part) for part in parts))

        sizes = np.array([len(own) for own in data.values()], dtype=np.int64)
        return cls(list(data), sizes, read, central_test=central_test)

    def __len__(self) -> int:
        return len(self.clients)

    def __contains__(self, client: object) -> bool:
        return client in self._position

    def client(self, client: str) -> ClientData:
        """Read one client's data.

        Raises:
          DataError: No client of that id.
        """
        if client not in self._position:
            raise DataError(f"no client `{client}` in this federation of {len(self)}")
        return self._read(client)

    def num_examples(self, client: str) -> int:
        """Training rows of one client (to the rounding of its split), without reading them."""
        return int(self.sizes[self._position[client]])

    def pooled(self, name: str = "pooled") -> FederatedDataset:
        """One client that holds everybody's rows: the federation that nobody may build, as a baseline."""

        def read(_: str) -> ClientData:
            everyone = [self.client(client) for client in self.clients]
            join = Examples.concatenate
            return ClientData(
                name,
                join([d.train for d in everyone]),
                join([d.validation for d in everyone]),
                join([d.test for d in everyone]),
            )

        total = np.array([int(np.sum(self.sizes))], dtype=np.int64)
        return FederatedDataset([name], total, read, dataset=self.dataset, central_test=self.central_test)


def _split_rows(
    rows: np.ndarray, dataset: Dataset, split: Split, seed: int, client: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classes = dataset.train.y[rows] if dataset.target == "classes" and split.stratify else None
    train, validation, test = split_positions(len(rows), classes, split, seed, client)
    return rows[train], rows[validation], rows[test]


def split_positions(
    count: int, labels: np.ndarray | None, split: Split, seed: int, client: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions `0 … count-1` in three parts, each sorted.

    With `labels` the parts keep the classes' proportions: rows are shuffled, ordered by class, and
    every part takes evenly spaced ones. A client with one example keeps it for training.
    """
    everything = np.arange(count)
    none = everything[:0]
    if split.validation == 0 and split.test == 0:
        return everything, none, none
    order = stream(seed, "split", client).permutation(count)
    if labels is not None and split.stratify:
        order = order[np.argsort(labels[order], kind="stable")]
    num_validation, num_test = round(count * split.validation), round(count * split.test)
    if count and num_validation + num_test >= count:
        num_validation, num_test = (0, count - 1) if num_test else (count - 1, 0)
    held = _evenly_spaced(count, num_validation + num_test)
    in_test = np.zeros(len(held), dtype=bool)
    in_test[_evenly_spaced(len(held), num_test)] = True
    mask = np.ones(count, dtype=bool)
    mask[held] = False
    return np.sort(order[mask]), np.sort(order[held[~in_test]]), np.sort(order[held[in_test]])


def _evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """`wanted` distinct positions in `0 … count-1`, evenly spaced."""
    if wanted <= 0:
        return np.zeros(0, dtype=np.int64)
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.int64)
