"""`summarise`: counts by hand, and bounded for many clients."""

from __future__ import annotations

import numpy as np
import pytest

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset, Split
from hanse.data.partition import IID, Partition
from hanse.data.summary import summarise


def test_counts_by_hand() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((5, 1)), np.array([0, 0, 1, 1, 1])), classes=("a", "b", "c"))
    partition = Partition.from_lists([np.array([0, 1, 2]), np.array([3, 4]), np.array([], dtype=np.int64)])
    found = summarise(FederatedDataset.partition(data, partition))
    assert found.classes == ("a", "b", "c")
    assert found.class_counts is not None
    assert found.class_counts.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found.sizes.tolist() == [3, 2, 0]
    assert (found.num_clients, found.num_examples, found.num_empty) == (3, 5, 1)
    assert found.size_quantiles.tolist() == [0, 1, 2, 2.5, 3]
    # all: (2/5, 3/5); first (2/3, 1/3) is 4/15 away, second (0, 1) is 2/5 away: (3 * 4/15 + 2 * 2/5) / 5
    assert found.label_distance == pytest.approx((3 * 4 / 15 + 2 * 2 / 5) / 5)
    assert not found.is_sample


def test_numbers_get_quantiles() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((5, 1)), np.arange(5.0)), target="number")
    partition = Partition.from_lists([np.arange(5), np.array([], dtype=np.int64)])
    found = summarise(FederatedDataset.partition(data, partition))
    assert found.class_counts is None
    assert found.target_quantiles is not None
    assert found.target_quantiles[0].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(found.target_quantiles[1]).all()


def test_all_parts_of_a_client_count() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((100, 1)), np.arange(100) % 2))
    partition = IID(clients=4)(data, 0)
    found = summarise(FederatedDataset.partition(data, partition, split=Split(test=0.2)))
    assert found.class_counts is not None
    assert found.class_counts.sum() == 100
    assert found.num_examples == 80


def test_many_clients_are_sampled() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((20_000, 1)), np.arange(20_000) % 7))
    found = summarise(FederatedDataset.partition(data, IID(clients=10_000)(data, 0)), max_clients=50)
    assert found.num_clients == 10_000
    assert len(found.clients) == len(found.sizes) == 50
    assert found.is_sample
    assert found.clients[0] == "client-0"
    assert found.clients[-1] == "client-9999"


def test_many_classes_share_a_column() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((1000, 1)), np.arange(1000) % 300))
    found = summarise(FederatedDataset.partition(data, IID(clients=2)(data, 0)))
    assert found.class_counts is not None
    assert found.class_counts.shape == (2, 100)
    assert found.classes[-1] == "other"
    assert found.class_counts.sum() == 1000


def test_data_that_clients_bring_is_read() -> None:
    arrays = {"a": (np.zeros((3, 1)), np.array([0, 1, 1])), "b": (np.zeros((2, 1)), np.array([2, 2]))}
    found = summarise(FederatedDataset.from_arrays(arrays))
    assert found.class_counts is not None
    assert found.class_counts.tolist() == [[1, 2, 0], [0, 0, 2]]
    assert found.classes == ("0", "1", "2")
    numbers = summarise(FederatedDataset.from_arrays({"a": (np.zeros((2, 1)), np.array([0.5, 1.5]))}))
    assert numbers.target_quantiles is not None


def test_tokens_have_sizes_only() -> None:
    tokens = np.zeros((6, 4), dtype=np.int64)
    data = Dataset(name="t", train=Examples(tokens, tokens), target="next_token", classes=("a",))
    found = summarise(FederatedDataset.partition(data, IID(clients=2)(data, 0)))
    assert found.class_counts is None
    assert found.target_quantiles is None
    assert found.sizes.tolist() == [3, 3]


def test_at_least_one_client() -> None:
    with pytest.raises(DataError, match="at least one"):
        summarise(FederatedDataset.from_arrays({"a": (np.zeros((1, 1)), np.zeros(1))}), max_clients=0)
