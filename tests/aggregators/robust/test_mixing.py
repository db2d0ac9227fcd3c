import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.geometric_median import GeometricMedian
from hanse.aggregators.robust.krum import Krum, MultiKrum
from hanse.aggregators.robust.mixing import Bucketing, Mixer, NearestNeighbours
from hanse.aggregators.robust.rule import RuleRound
from hanse.core.errors import SettingError
from hanse.testing.aggregator import check_aggregator
from hanse.testing.fakes import make_update
from tests.aggregators.robust.rows_of import rows_of

LINE = rows_of([[0.0], [1.0], [3.0], [10.0]])


class InOrder:
    """A generator that leaves the order as it is."""

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)


def test_buckets_by_hand() -> None:
    found = Bucketing(size=3).matrix(LINE, attackers=1, rng=InOrder())  # type: ignore[arg-type]
    np.testing.assert_allclose(found, [[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1]])


def test_each_row_is_in_one_bucket() -> None:
    found = Bucketing(size=2).matrix(rows_of(np.eye(7)), attackers=1, rng=np.random.default_rng(0))
    assert found.shape == (4, 7)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal((found > 0).sum(axis=0), 1)
    np.testing.assert_array_equal((found > 0).sum(axis=1), [2, 2, 2, 1])


def test_buckets_are_drawn_anew_and_again_the_same() -> None:
    rows, rng = rows_of(np.eye(30)), np.random.default_rng(0)
    first, second = (Bucketing().matrix(rows, attackers=1, rng=rng) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(Bucketing().matrix(rows, attackers=1, rng=np.random.default_rng(0)), first)


def test_nearest_neighbours_by_hand() -> None:
    # f = 2, so two rows each: 0 with 1, 1 with 0, 3 with 1, 10 with 3
    found = NearestNeighbours().matrix(LINE, attackers=2, rng=np.random.default_rng(0))
    half = 0.5
    np.testing.assert_allclose(found, [[half, half, 0, 0], [half, half, 0, 0], [0, half, half, 0], [0, 0, half, half]])
    np.testing.assert_allclose(LINE.mixed(found).combined(np.array([1.0, 0, 0, 1])), [7.0])


def test_without_attackers_all_become_the_mean() -> None:
    np.testing.assert_allclose(NearestNeighbours().matrix(LINE, attackers=0, rng=np.random.default_rng(0)), 0.25)


@pytest.mark.parametrize("mixing", [Bucketing(size=2), NearestNeighbours()])
@pytest.mark.parametrize("rule", [Krum(), MultiKrum(), GeometricMedian()])
def test_a_rule_behind_it_sees_what_dense_mixtures_are(mixing: Mixer, rule: Krum | MultiKrum | GeometricMedian) -> None:
    values = np.random.default_rng(3).standard_normal((14, 60)).astype(np.float32)
    values[12:] = 1e4
    rows = rows_of(values)
    mix = mixing.matrix(rows, attackers=2, rng=np.random.default_rng(1))
    given = RuleRound(attackers=2, rng=np.random.default_rng(0))
    mixed, dense = rule.combine(rows.mixed(mix), given), rule.combine(rows_of(mix @ values), given)
    np.testing.assert_allclose(mixed.vector, dense.vector, atol=2e-3)


def test_through_the_aggregator() -> None:
    aggregator = Robust(rule=MultiKrum(), attackers=2, mixing=NearestNeighbours())
    check_aggregator(aggregator)
    updates = [make_update([float(i < 7), 1e20 * (i >= 7)], client=f"site-{i}") for i in range(9)]
    total = aggregator.zero(updates[0].delta.spec)
    for update in updates:
        total = aggregator.accumulate(total, update, 1.0)
    found = aggregator.finish(total)
    np.testing.assert_allclose(found.delta.numpy(), [1, 0], rtol=1e-6)
    weights = {verdict.client: verdict.weight for verdict in found.verdicts}
    assert sum(weights[f"site-{i}"] or 0.0 for i in range(7)) == pytest.approx(1)
    assert weights["site-8"] == 0


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match="size: must be at least 1"):
        Bucketing(size=0)
    assert Bucketing(size=3).num_rows(7) == 3
    assert NearestNeighbours().num_rows(7) == 7
