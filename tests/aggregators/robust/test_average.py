import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.average import Average
from hanse.core.errors import TooFewClientsError
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, combine


def test_is_the_mean() -> None:
    found = combine(Average(), [[1.0, 2], [3, 6], [5, 1]])
    np.testing.assert_allclose(found.vector, [3, 3])
    np.testing.assert_allclose(found.weights, [1 / 3] * 3)
    np.testing.assert_allclose(combine(Average(), [[1.0, 2]]).vector, [1, 2])


def test_one_row_moves_it_anywhere() -> None:
    assert combine(Average(), [[1.0]] * 9 + [[1e9]]).vector[0] > 1e7


def test_holds_against_none() -> None:
    assert Average().fewest(0) == 1
    assert Average().fewest(1) is None
    with pytest.raises(TooFewClientsError, match="`Average`"):
        Robust(rule=Average(), attackers=1).check_number(50)


def test_conforms_in_any_order() -> None:
    check_aggregator(Robust(rule=Average(), attackers=0))
    check_order(Average(), np.random.default_rng(2).standard_normal((9, 30)), attackers=0)
