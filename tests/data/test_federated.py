"""`FederatedDataset`: lazily read, cheap for many clients, exact about sizes."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.federated import ClientData, FederatedDataset, Split
from hanse.data.partition import IID, Dirichlet, FeatureNoise, Natural


def toy(count: int = 200) -> Dataset:
    y = np.arange(count) % 3
    return Dataset(
        name="toy",
        train=Examples(np.arange(count, dtype=np.float32)[:, None], y),
        test=Examples(np.arange(6, dtype=np.float32)[:, None] + 1000, np.arange(6) % 3),
        groups={"site": np.arange(count) % 4},
        test_groups={"site": np.array([0, 0, 1, 2, 9, 9])},
    )


def test_sizes_are_exactly_the_training_rows() -> None:
    data = toy()
    federated = FederatedDataset.partition(
        data, Dirichlet(clients=9, alpha=0.4)(data, 0), split=Split(validation=0.15, test=0.25), seed=3
    )
    for client in federated.clients:
        assert federated.num_examples(client) == len(federated.client(client).train)
    rows = np.concatenate([part.x for c in federated.clients for part in parts(federated.client(c))])
    assert sorted(rows[:, 0].tolist()) == list(range(200))
    assert federated.central_test is data.test
    pooled = federated.pooled()
    assert pooled.num_examples("pooled") == len(pooled.client("pooled").train) == int(federated.sizes.sum())


def parts(data: ClientData) -> tuple[Examples, Examples, Examples]:
    return data.train, data.validation, data.test


def test_pooled_holds_what_the_clients_hold_in_their_order() -> None:
    data = toy()
    for partition in (Natural(column="site")(data, 0), FeatureNoise(sigma=1.0, of=Natural(column="site"))(data, 0)):
        federated = FederatedDataset.partition(data, partition, split=Split(validation=0.1, test=0.2))
        everyone = [federated.client(client) for client in federated.clients]
        pooled = federated.pooled().client("pooled")
        assert pooled.client == "pooled"
        for name in ("train", "validation", "test"):
            joined = Examples.concatenate([own.part(name) for own in everyone])
            assert len(pooled.part(name)) == len(joined)
            # own test rows stand behind all others in a pool, so order is not compared there
            assert np.array_equal(np.sort(pooled.part(name).x, axis=0), np.sort(joined.x, axis=0))
        assert np.array_equal(pooled.train.x, np.concatenate([own.train.x for own in everyone]))
        assert np.array_equal(pooled.train.y, np.concatenate([own.train.y for own in everyone]))


def test_own_test_rows_join_what_the_split_keeps_back() -> None:
    data = toy()
    partition = Natural(column="site")(data, 0)
    plain = FederatedDataset.partition(data, partition)
    assert plain.client("site-0").test.x[:, 0].tolist() == [1000, 1001]
    assert len(plain.client("site-3").test) == 0
    split = FederatedDataset.partition(data, partition, split=Split(test=0.1))
    assert len(split.client("site-0").test) == 5 + 2
    assert split.num_examples("site-0") == len(split.client("site-0").train) == 45


def test_noise_differs_between_the_parts_of_a_client() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((40, 3), np.float32), np.zeros(40, dtype=np.int64)))
    partition = FeatureNoise(sigma=1.0, clients=1)(data, 0)
    own = FederatedDataset.partition(data, partition, split=Split(test=0.5)).client("client-0")
    assert own.train.x.any()
    assert not np.isin(own.train.x, own.test.x).any()


def test_noise_reaches_own_test_rows() -> None:
    data = toy()
    partition = FeatureNoise(sigma=1.0, of=Natural(column="site"))(data, 0)
    noisy = FederatedDataset.partition(data, partition).client("site-0").test.x[:, 0]
    assert len(noisy) == 2
    assert (noisy != np.array([1000, 1001])).all()


def test_a_federation_can_be_sent_to_another_process() -> None:
    data = toy()
    partition = FeatureNoise(sigma=1.0, clients=4)(data, 0)
    federated = FederatedDataset.partition(data, partition, split=Split(test=0.2))
    other = pickle.loads(pickle.dumps(federated))
    for client in federated.clients:
        assert np.array_equal(other.client(client).train.x, federated.client(client).train.x)


def test_clients_may_bring_their_data_split() -> None:
    empty = Examples(np.zeros((0, 1)), np.zeros(0))
    own = ClientData("a", Examples(np.zeros((3, 1)), np.zeros(3)), empty, empty)
    federated = FederatedDataset.from_clients({"a": own})
    assert federated.client("a") is own
    assert federated.num_examples("a") == 3
    assert federated.pooled().client("pooled").train.x.shape == (3, 1)
    with pytest.raises(DataError, match="twice"):
        FederatedDataset(["a", "a"], np.zeros(2), lambda _: own)


def test_from_arrays_splits_each_client() -> None:
    arrays = {"a": (np.zeros((10, 2)), np.arange(10) % 2), "b": (np.ones((3, 2)), np.arange(3) / 2)}
    federated = FederatedDataset.from_arrays(arrays, split=Split(test=0.2))
    assert federated.sizes.tolist() == [8, 2]
    assert [len(federated.client(c).train) for c in "ab"] == [8, 2]
    assert "a" in federated
    assert "z" not in federated


def test_an_unknown_client_is_named() -> None:
    federated = FederatedDataset.from_arrays({"site-1": (np.zeros((2, 1)), np.zeros(2))})
    for ask in (federated.client, federated.num_examples):
        with pytest.raises(DataError, match="no client `site-2`") as error:
            ask("site-2")
        assert "did you mean `site-1`" in str(error.value)


def test_no_client_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="at least one client"):
        FederatedDataset.from_arrays({})


def test_a_partition_of_another_data_set_is_refused() -> None:
    data = toy()
    with pytest.raises(DataError, match="names row 199"):
        FederatedDataset.partition(toy(100), IID(clients=3)(data, 0))


def test_population_scale_is_cheap() -> None:
    """100,000 clients: built from 6 million row references; a client's rows are a view of one shared array."""
    data = Dataset(name="toy", train=Examples(np.zeros((60_000, 1), np.float32), np.arange(60_000) % 10))
    start = time.perf_counter()
    partition = IID(clients=100_000, examples_per_client=60)(data, 0)
    federated = FederatedDataset.partition(data, partition, split=Split(test=0.1))
    assert time.perf_counter() - start < 10  # 0.3 s on a quiet core; generous, for it guards against quadratic work
    assert np.shares_memory(partition.rows_of("client-99999"), partition.rows)
    assert federated.sizes.nbytes + partition.rows.nbytes + partition.offsets.nbytes < 60e6
    assert len(federated.client("client-99999").train) == 54
