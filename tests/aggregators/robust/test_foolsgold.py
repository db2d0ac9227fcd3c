import math

import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.foolsgold import FoolsGold
from hanse.aggregators.robust.mixing import Bucketing, Mixer, NearestNeighbours
from hanse.core.errors import SettingError
from hanse.core.judged_round import JudgedRound
from hanse.testing.aggregator import check_aggregator
from tests.aggregators.robust.rows_of import check_order, combine, robust_of


def test_by_hand() -> None:
    # cosines: 0-1 1, 0-2 0.6, 1-2 0.6, all others 0; v = 1, 1, 0.6, 0.
    # pardoning: row 2: 0.6 · 0.6 / 1 = 0.36; α = 0, 0, 0.64, 1; logit of 0.64: ln(0.64 / 0.36) + 0.5 = 1.075, cut to 1
    values = [[1.0, 0, 0], [2, 0, 0], [3, 4, 0], [0, 0, 5]]
    found = combine(FoolsGold(), values, attackers=2)
    np.testing.assert_allclose(found.weights, [0, 0, 0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(found.vector, [1.5, 2, 2.5])


def test_the_logit_by_hand() -> None:
    # 0-1: cosine 0.8, 2 by itself: α = 0.2, 0.2, 1; ln(0.2 / 0.8) + 0.5 < 0 with κ = 1, so 0
    values = [[1.0, 0, 0], [0.8, 0.6, 0], [0, 0, 1]]
    np.testing.assert_allclose(combine(FoolsGold(), values).weights, [0, 0, 1], atol=1e-9)
    # 0-1: cosine 0.6: α = 0.4; ln(0.4 / 0.6) + 0.5, half of it with κ = 0.5
    values[1] = [0.6, 0.8, 0]
    own = math.log(0.4 / 0.6) + 0.5
    for confidence in (1.0, 0.5):
        wanted = np.array([confidence * own, confidence * own, 1])
        found = combine(FoolsGold(confidence=confidence), values)
        np.testing.assert_allclose(found.weights, wanted / wanted.sum(), rtol=1e-5)


def test_histories_count_and_not_rounds() -> None:
    # alike in the first round, unlike in the second, in which their sums still are: (1, 1) and (2, 0), cosine 0.71
    first = combine(FoolsGold(), [[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])
    second = combine(FoolsGold(), [[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], memory=first.memory)
    np.testing.assert_array_equal(second.memory["history.site-000"], [1, 1, 0])
    np.testing.assert_array_equal(second.memory["history.site-001"], [2, 0, 0])
    np.testing.assert_allclose(second.weights, [0, 0, 1])


def test_clients_who_stay_away_are_remembered() -> None:
    first = combine(FoolsGold(), [[1.0, 0], [0, 1]], clients=("a", "b"))
    second = combine(FoolsGold(), [[1.0, 0], [0, 1]], clients=("c", "b"), memory=first.memory)
    assert set(second.memory) == {"key", "history.a", "history.b", "history.c"}
    np.testing.assert_array_equal(second.memory["key"], first.memory["key"])
    np.testing.assert_array_equal(second.memory["history.b"], [0, 2])


def test_clients_who_are_all_alike_give_zero() -> None:
    found = combine(FoolsGold(), np.ones((4, 3)))
    np.testing.assert_array_equal(found.vector, np.zeros(3))
    np.testing.assert_array_equal(found.weights, np.zeros(4))


def test_one_client_and_clients_who_send_zeros() -> None:
    np.testing.assert_allclose(combine(FoolsGold(), [[3.0, 3]]).vector, [3, 3])
    np.testing.assert_allclose(combine(FoolsGold(), [[0.0, 0], [0, 0], [3, 0]]).vector, [1, 0])


@pytest.mark.parametrize("size", [1.0, 1e30])
def test_many_who_push_the_same_way(size: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.standard_normal((3, 5_000))
    push = size * (rng.standard_normal(5_000) + 0.01 * rng.standard_normal((9, 5_000)))
    found = combine(FoolsGold(sketch=1024), [*honest, *push], attackers=9)
    assert found.weights is not None
    assert found.weights[3:].max() == 0
    assert found.weights[:3].min() > 0.3


def test_one_attacker_is_not_noticed() -> None:
    values = [*np.eye(4), [0.0, 0, 0, -1000]]
    found = combine(FoolsGold(), values, attackers=1)
    np.testing.assert_allclose(found.weights, [0.2] * 5)


def test_memory_stays_small_and_exact_where_it_fits() -> None:
    values = np.random.default_rng(1).standard_normal((3, 1000)).astype(np.float32)
    small, exact = (combine(FoolsGold(sketch=size), values).memory for size in (64, 1000))
    assert small["history.site-001"].shape == (64,)
    np.testing.assert_array_equal(exact["history.site-001"], values[1])


def test_conforms_in_any_order() -> None:
    check_aggregator(Robust(rule=FoolsGold(sketch=8), attackers=4))
    check_order(FoolsGold(sketch=16), np.random.default_rng(2).standard_normal((9, 30)), attackers=4)
    assert FoolsGold().fewest(4) == 5


def test_the_aggregator_carries_histories() -> None:
    values, memory = [[1.0, 0], [0, 1], [0, 2]], {}
    for number in (1, 2):
        given = JudgedRound(round=number, rng=np.random.default_rng(number), memory=memory)
        memory = dict(robust_of(FoolsGold(), values, range(3), attackers=1, given=given).memory)
    np.testing.assert_array_equal(memory["history.site-002"], [0, 4])


@pytest.mark.parametrize("settings", [{"sketch": 0}, {"confidence": 0.0}, {"confidence": float("nan")}])
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        FoolsGold(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("mixing", [Bucketing(), NearestNeighbours()])
def test_it_takes_no_mixtures_for_they_are_of_no_one_client(mixing: Mixer) -> None:
    with pytest.raises(SettingError, match="remembers those of each client"):
        Robust(rule=FoolsGold(), attackers=1, mixing=mixing)
