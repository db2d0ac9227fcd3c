import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.fltrust import FLTrust
from hanse.core.errors import PipelineError
from hanse.core.judged_round import JudgedRound
from hanse.testing.aggregator import check_aggregator
from hanse.testing.fakes import make_update
from tests.aggregators.robust.rows_of import check_order, combine, honest_and_outliers


def test_by_hand() -> None:
    # root (2, 0): cosines 1, 0.6, -1; rows at its length (2, 0), (1.2, 1.6); weighted by 1 and 0.6
    found = combine(FLTrust(), [[5.0, 0], [3, 4], [-7, 0]], attackers=1, root=np.array([2.0, 0]))
    np.testing.assert_allclose(found.vector, [(2 + 0.6 * 1.2) / 1.6, 0.6 * 1.6 / 1.6], rtol=1e-6)
    np.testing.assert_allclose(found.weights, [2 / 5 / 1.6, 0.6 * 2 / 5 / 1.6, 0], rtol=1e-6)
    assert found.measured == {"trusted": 2.0}


@pytest.mark.parametrize(
    ("values", "root"),
    [
        ([[-1.0, 0], [0, 1]], [2.0, 0]),  # nobody points its way
        ([[1.0, 0], [0, 1]], [0.0, 0]),
        ([[0.0, 0], [0, 0]], [2.0, 0]),
    ],
)
def test_without_any_trust_the_result_is_zero(values: list[list[float]], root: list[float]) -> None:
    found = combine(FLTrust(), values, root=np.array(root))
    np.testing.assert_array_equal(found.vector, [0, 0])
    np.testing.assert_array_equal(found.weights, [0, 0])


def test_one_row_and_rows_of_zeros() -> None:
    root = np.array([2.0, 0])
    np.testing.assert_allclose(combine(FLTrust(), [[3.0, 3]], root=root).vector, [2**0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(combine(FLTrust(), [[0.0, 0], [9, 0]], root=root).vector, [2, 0], rtol=1e-6)


def test_conforms_in_any_order() -> None:
    root = make_update(np.ones(12), extras={"c": np.ones(3)})
    given = JudgedRound(round=1, rng=np.random.default_rng(0), root=root)
    check_aggregator(Robust(rule=FLTrust(), attackers=4).judging(given))
    check_order(FLTrust(), np.random.default_rng(2).standard_normal((9, 30)), attackers=4, root=np.ones(30))


@pytest.mark.parametrize("size", [100.0, 1e30])
def test_holds_against_all_but_one(size: float) -> None:
    good, values = honest_and_outliers(1, 8, size=size)
    root = good[0] + 0.1
    found = combine(FLTrust(), values, attackers=8, root=root).vector
    assert np.linalg.norm(found - root) < 0.2 * np.linalg.norm(root)
    assert FLTrust().fewest(8) == 9


def test_asks_for_a_root() -> None:
    aggregator = Robust(rule=FLTrust(), attackers=1)
    assert aggregator.needs_root
    with pytest.raises(PipelineError, match="root"):
        check_aggregator(aggregator)
    with pytest.raises(PipelineError, match="none"):
        combine(FLTrust(), [[1.0]])


@pytest.mark.parametrize("size", [5e-324, 1e-200])
def test_what_is_next_to_nothing_has_no_trust(size: float) -> None:
    found = combine(FLTrust(), [[size, 0.0], [2.0, 0.0]], dtype=np.float64, root=np.array([1.0, 0.0]))
    np.testing.assert_allclose(found.vector, [1.0, 0.0])
    np.testing.assert_array_equal(found.weights, [0.0, 0.5])
