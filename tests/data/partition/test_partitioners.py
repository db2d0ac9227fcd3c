"""What every partitioner keeps: rows disjoint, complete, the same for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import DataError, SettingError
from hanse.data.catalogue import PARTITIONERS, make_partitioner
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.partition import (
    IID,
    Dirichlet,
    FeatureNoise,
    LabelsPerClient,
    Natural,
    Partition,
    Partitioner,
    QuantitySkew,
    Shards,
)


def classes(counts: list[int], seed: int = 0) -> Dataset:
    """Rows of so many of each class, in random order; x is the row's number."""
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    x = np.arange(len(y), dtype=np.float32)[:, None]
    names = tuple("abcdefghij"[: len(counts)])
    return Dataset(name="toy", train=Examples(x, y), classes=names, groups={"site": y % 3})


def numbers(count: int) -> Dataset:
    y = np.random.default_rng(1).normal(size=count).astype(np.float32)
    return Dataset(name="toy", train=Examples(y[:, None], y), target="number")


EVERY_ROW: list[Partitioner] = [
    IID(clients=7),
    Shards(clients=6, shards_per_client=3),
    Dirichlet(clients=5, alpha=0.5),
    Dirichlet(clients=5, alpha=0.5, equal_sizes=True),
    Dirichlet(clients=5, alpha=0.2, quantity_alpha=1.0),
    LabelsPerClient(clients=8, labels=2),
    QuantitySkew(clients=5, alpha=1.0),
    Natural(column="site"),
    FeatureNoise(sigma=0.1, clients=4),
    FeatureNoise(sigma=0.1, of=Dirichlet(clients=3, alpha=1.0)),
]


def rows(partition: Partition) -> list[list[int]]:
    return [partition.rows_of(client).tolist() for client in partition.clients]


@pytest.mark.parametrize("partitioner", EVERY_ROW, ids=str)
def test_shares_out_every_row_exactly_once(partitioner: Partitioner) -> None:
    data = classes([40, 30, 50, 20])
    partition = partitioner(data, 7)
    assert sorted(partition.rows.tolist()) == list(range(140))
    assert int(partition.sizes.sum()) == 140
    assert partition.sizes.min() >= 1


@pytest.mark.parametrize("partitioner", EVERY_ROW, ids=str)
def test_repeats_itself_and_follows_the_seed(partitioner: Partitioner) -> None:
    data = classes([40, 30, 50, 20])
    first = rows(partitioner(data, 7))
    assert rows(partitioner(data, 7)) == first
    if not isinstance(partitioner, Natural):
        assert rows(partitioner(data, 8)) != first


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda c: sum(c) > 0),
    clients=st.integers(1, 12),
    alpha=st.floats(0.01, 100),
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(["free", "equal", "skew"]),
)
@settings(deadline=None, max_examples=150)
def test_dirichlet_uses_every_row_once_whatever_the_classes(
    counts: list[int], clients: int, alpha: float, seed: int, mode: str
) -> None:
    data = classes(counts, seed=1)
    partition = Dirichlet(
        clients=clients,
        alpha=alpha,
        min_size=0,
        equal_sizes=mode == "equal",
        quantity_alpha=0.5 if mode == "skew" else None,
    )(data, seed)
    assert sorted(partition.rows.tolist()) == list(range(sum(counts)))
    assert len(partition.clients) == clients
    if mode == "equal":
        assert np.ptp(partition.sizes) <= 1


@given(clients=st.integers(1, 20), shards=st.integers(1, 4), extra=st.integers(0, 50), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_shards_and_iid_differ_by_no_more_than_rounding(clients: int, shards: int, extra: int, seed: int) -> None:
    data = classes([clients * shards, extra])
    sharded = Shards(clients=clients, shards_per_client=shards)(data, seed)
    assert sorted(sharded.rows.tolist()) == list(range(len(data.train)))
    assert np.ptp(sharded.sizes) <= shards
    assert np.ptp(IID(clients=clients)(data, seed).sizes) <= 1


def test_shards_hand_computed() -> None:
    # sorted by label: rows of class 0, then of class 1; two shards of two rows, one for each client
    data = Dataset(name="toy", train=Examples(np.zeros((4, 1)), np.array([1, 0, 1, 0])), classes=("a", "b"))
    found = sorted(sorted(own) for own in rows(Shards(clients=2, shards_per_client=1)(data, 3)))
    assert found == [[0, 2], [1, 3]]


def test_shards_leave_a_client_few_classes() -> None:
    data = classes([200] * 10)
    partition = Shards(clients=50)(data, 0)
    seen = [len(np.unique(data.train.y[partition.rows_of(client)])) for client in partition.clients]
    assert max(seen) <= 2  # 100 shards of 20 rows: none straddles two classes of 200
    assert np.mean(seen) > 1.5


def test_shards_sort_numbers_by_value() -> None:
    data = numbers(100)
    partition = Shards(clients=10, shards_per_client=1)(data, 0)
    spans = sorted((data.train.y[own].min(), data.train.y[own].max()) for own in rows(partition))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize("labels", [1, 2, 3, 4])
def test_every_client_holds_exactly_k_labels(labels: int) -> None:
    data = classes([60, 60, 60, 60])
    partition = LabelsPerClient(clients=12, labels=labels)(data, 5)
    for i, client in enumerate(partition.clients):
        held = np.unique(data.train.y[partition.rows_of(client)])
        assert len(held) == labels
        assert i % 4 in held


def test_labels_per_client_divides_a_class_evenly_among_its_holders() -> None:
    data = classes([61, 60])
    partition = LabelsPerClient(clients=4, labels=1)(data, 0)
    assert partition.sizes.tolist() == [30, 30, 31, 30] or sorted(partition.sizes.tolist()) == [30, 30, 30, 31]


def test_large_alpha_approaches_the_common_mix_and_small_alpha_one_class() -> None:
    data = classes([500] * 4)

    def largest_share(alpha: float, *, equal: bool) -> float:
        partition = Dirichlet(clients=10, alpha=alpha, min_size=0, equal_sizes=equal)(data, 1)
        held = [data.train.y[own] for own in rows(partition) if own]
        return float(np.mean([np.bincount(y).max() / len(y) for y in held]))

    for equal in (False, True):
        assert largest_share(1e4, equal=equal) < 0.35
        assert largest_share(0.02, equal=equal) > 0.75


def test_dirichlet_shares_have_the_mean_and_variance_of_the_distribution() -> None:
    # share of a class that one of N clients gets: mean 1/N, variance (1/N)(1 - 1/N)/(N alpha + 1).
    # 20 clients x 20 classes, one seed; 5 standard errors of the variance estimate is below 40 %.
    num_clients, alpha, size = 20, 2.0, 2000
    data = Dataset(name="toy", train=Examples(np.zeros((40_000, 1)), np.repeat(np.arange(20), size)))
    partition = Dirichlet(clients=num_clients, alpha=alpha)(data, 4)
    shares = np.stack([np.bincount(data.train.y[own], minlength=20) for own in rows(partition)]) / size
    assert np.allclose(shares.sum(axis=0), 1)
    wanted = (1 / num_clients) * (1 - 1 / num_clients) / (num_clients * alpha + 1)
    assert shares.var() == pytest.approx(wanted, rel=0.4)


def test_quantity_skew_changes_sizes_and_not_labels() -> None:
    data = classes([2000, 2000])
    partition = QuantitySkew(clients=5, alpha=0.5, min_size=100)(data, 2)
    assert partition.sizes.min() >= 100
    assert partition.sizes.max() > 2 * partition.sizes.min()
    for own in rows(partition):
        # a share of one half, 5 standard errors
        assert abs(np.mean(data.train.y[own]) - 0.5) < 5 * 0.5 / np.sqrt(len(own))


def test_min_size_is_kept_or_refused() -> None:
    data = classes([50, 50])
    assert Dirichlet(clients=5, alpha=0.3, min_size=8)(data, 0).sizes.min() >= 8
    assert Dirichlet(clients=5, alpha=0.3, min_size=8, quantity_alpha=1.0)(data, 0).sizes.min() >= 8
    with pytest.raises(DataError, match="needs at least 200") as error:
        Dirichlet(clients=20, alpha=0.3, min_size=10)(data, 0)
    assert "fewer clients" in str(error.value)
    with pytest.raises(DataError, match="min_size = 19"):
        Dirichlet(clients=5, alpha=0.01, min_size=19)(data, 0)
    with pytest.raises(DataError, match="min_size = 19"):
        QuantitySkew(clients=5, alpha=0.01, min_size=19)(data, 0)


def test_label_skew_of_numbers_goes_by_quantile_bins() -> None:
    data = numbers(600)
    partition = Dirichlet(clients=6, alpha=0.05, min_size=1)(data, 0)
    spread = [np.std(data.train.y[own]) for own in rows(partition) if len(own) > 5]
    assert np.mean(spread) < 0.8 * np.std(data.train.y)


def test_tokens_have_no_label_skew() -> None:
    tokens = np.zeros((5, 3), dtype=np.int64)
    data = Dataset(name="text", train=Examples(tokens, tokens), target="next_token", classes=("a",))
    for partitioner in (Dirichlet(clients=2, alpha=1), Shards(clients=2), LabelsPerClient(clients=2, labels=1)):
        with pytest.raises(DataError, match="no single label") as error:
            partitioner(data, 0)
        assert "natural" in (error.value.hint or "")
    assert IID(clients=2)(data, 0).sizes.tolist() == [3, 2]


def test_more_clients_than_rows_is_an_error_unless_rows_may_be_shared() -> None:
    data = classes([10])
    with pytest.raises(DataError, match="10 training rows"):
        IID(clients=11)(data, 0)
    partition = IID(clients=1000, examples_per_client=3)(data, 0)
    assert partition.sizes.tolist() == [3] * 1000
    assert all(len(set(own)) == 3 for own in rows(partition))
    assert set(partition.rows.tolist()) == set(range(10))


def test_natural_clients_are_the_values_of_the_column() -> None:
    labels = np.array(["b", "a", "b", "c", "b"])
    data = Dataset(name="toy", train=Examples(np.zeros((5, 1)), np.zeros(5, dtype=np.int64)), groups={"site": labels})
    partition = Natural(column="site")(data, 0)
    assert list(partition.clients) == ["a", "b", "c"]
    assert rows(partition) == [[1], [0, 2, 4], [3]]
    assert list(Natural(column="site", min_examples=2)(data, 0).clients) == ["b"]
    assert len(Natural(column="site", max_clients=2)(data, 0).clients) == 2
    with pytest.raises(DataError, match="no group column `sight`") as error:
        Natural(column="sight")(data, 0)
    assert "did you mean `site`" in str(error.value)
    with pytest.raises(DataError, match="the largest has 3"):
        Natural(column="site", min_examples=9)(data, 0)


def test_natural_clients_bring_their_own_test_rows() -> None:
    data = Dataset(
        name="toy",
        train=Examples(np.zeros((3, 1)), np.zeros(3, dtype=np.int64)),
        test=Examples(np.arange(4.0)[:, None], np.zeros(4, dtype=np.int64)),
        groups={"writer": np.array([7, 5, 7])},
        test_groups={"writer": np.array([7, 9, 5, 7])},
    )
    partition = Natural(column="writer")(data, 0)
    assert list(partition.clients) == ["writer-5", "writer-7"]
    assert [partition.test_rows_of(client).tolist() for client in partition.clients] == [[2], [0, 3]]
    alone = Natural(column="writer", min_examples=2)(data, 0)
    assert alone.test_rows_of("writer-7").tolist() == [0, 3]


def test_noise_grows_with_the_client_and_stays_the_same() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((4000, 10), np.float32), np.zeros(4000, dtype=np.int64)))
    partition = FeatureNoise(sigma=0.4, clients=4)(data, 3)
    assert partition.transform is not None
    for i, client in enumerate(partition.clients, 1):
        examples = data.train.take(partition.rows_of(client))
        noisy = partition.transform(client, examples)
        # 10,000 draws: the sample variance has a relative standard error of 1.4 %
        assert noisy.x.var() == pytest.approx(0.4 * i / 4, rel=0.07)
        assert np.array_equal(noisy.x, partition.transform(client, examples).x)
        assert noisy.x.dtype == np.float32
    silent = FeatureNoise(sigma=0.0, clients=4)(data, 3)
    assert silent.transform is not None
    assert not silent.transform("client-3", data.train).x.any()


def test_noise_refuses_tokens() -> None:
    data = Dataset(name="toy", train=Examples(np.zeros((4, 2), np.int64), np.zeros(4, dtype=np.int64)))
    with pytest.raises(DataError, match="needs real numbers"):
        FeatureNoise(sigma=0.1, clients=2)(data, 0)


@pytest.mark.parametrize(
    ("name", "wrong", "where"),
    [
        ("iid", {"clients": 0}, "partition.clients"),
        ("iid", {"clients": 2.5}, "partition.clients"),
        ("iid", {"clients": True}, "partition.clients"),
        ("dirichlet", {"clients": 5, "alpha": 0}, "partition.alpha"),
        ("dirichlet", {"clients": 5, "alpha": float("nan")}, "partition.alpha"),
        ("dirichlet", {"clients": 5, "alpha": "x"}, "partition.alpha"),
        ("dirichlet", {"clients": 5, "alpha": 1, "min_size": -1}, "partition.min_size"),
        ("dirichlet", {"clients": 5, "alpha": 1, "equal_sizes": True, "quantity_alpha": 1}, "partition.equal_sizes"),
        ("dirichlet", {"clients": 5}, "partition.alpha"),
        ("shards", {"clients": 5, "shards_per_client": 0}, "partition.shards_per_client"),
        ("labels_per_client", {"clients": 5, "labels": 0}, "partition.labels"),
        ("quantity", {"clients": 5, "alpha": -1}, "partition.alpha"),
        ("feature_noise", {"sigma": -1, "clients": 2}, "partition.sigma"),
        ("feature_noise", {"sigma": 1}, "partition.of"),
        ("natural", {"column": "a", "max_clients": 0}, "partition.max_clients"),
        ("iid", {"client": 5}, "partition.client"),
        ("dirichlt", {}, "partition.use"),
    ],
)
def test_wrong_settings_say_where(name: str, wrong: dict[str, object], where: str) -> None:
    with pytest.raises(SettingError) as error:
        make_partitioner(name, **wrong)
    assert error.value.where == where


def test_a_misspelt_setting_gets_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean `clients`"):
        make_partitioner("iid", client=5)


def test_every_name_in_the_catalogue_is_a_partitioner() -> None:
    needed = {"clients": 2, "alpha": 1.0, "labels": 1, "column": "site", "sigma": 0.1}
    data = classes([5, 5])
    for name, where in PARTITIONERS.items():
        fields = __import__(where.split(":")[0], fromlist=["x"]).__dict__[where.split(":")[1]].__dataclass_fields__
        settings_ = {key: value for key, value in needed.items() if key in fields}
        partition = make_partitioner(name, **settings_)(data, 0)
        assert len(partition.rows) == 10


def test_labels_per_client_refuses_what_can_not_be() -> None:
    with pytest.raises(DataError, match="labels = 3"):
        LabelsPerClient(clients=2, labels=3)(classes([5, 5]), 0)
    with pytest.raises(DataError, match="only 5 rows"):
        LabelsPerClient(clients=12, labels=1)(classes([5, 50]), 0)


def test_a_partition_checks_itself() -> None:
    with pytest.raises(DataError, match="offsets"):
        Partition(["a"], np.arange(3), np.array([0, 2]))
    with pytest.raises(DataError, match="twice"):
        Partition.from_lists([np.arange(1), np.arange(1)], clients=["a", "a"])
    with pytest.raises(DataError, match="no client `b`"):
        Partition.from_lists([np.arange(1)], clients=["a"]).rows_of("b")
