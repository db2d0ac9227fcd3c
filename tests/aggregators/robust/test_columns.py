"""Median and trimmed mean: oracles by hand, dense computation, any order, any number of threads, breakdown points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hanse.aggregators.robust import columns
from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.columns import Median, TrimmedMean, over_sorted
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Rule, RuleRound
from hanse.core.aggregate import Aggregate
from hanse.core.errors import NonFiniteUpdateError, SettingError, TooFewClientsError
from hanse.core.messages import Update
from hanse.core.params import Params
from hanse.testing.aggregator import check_aggregator
from hanse.testing.fakes import make_update

RULES: list[Rule] = [Median(), TrimmedMean()]
HUGE = 1e30


def combine(rule: Rule, rows: np.ndarray, attackers: int = 0) -> np.ndarray:
    known = RuleRound(attackers=attackers, rng=np.random.default_rng(0))
    return rule.combine(Rows(list(rows)), known).vector


def dense_trimmed(rows: np.ndarray, trim: int) -> np.ndarray:
    return np.asarray(np.sort(rows.astype(np.float64), axis=0)[trim : len(rows) - trim].mean(axis=0))


def normal(num: int, dimension: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(num * 7919 + dimension).normal(size=(num, dimension)).astype(dtype)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 columns, so that a few hundred make many."""
    monkeypatch.setattr(columns, "_BLOCK_BYTES", 0)
    monkeypatch.setattr(columns, "_FEWEST_COLUMNS", 16)


def test_median_by_hand() -> None:
    odd = np.array([[3.0, -1.0, 0.0], [1.0, 5.0, 0.0], [2.0, 4.0, 9.0]], dtype=np.float32)
    assert combine(Median(), odd).tolist() == [2.0, 4.0, 0.0]
    even = np.vstack([odd, np.array([[10.0, 7.0, 1.0]], dtype=np.float32)])
    assert combine(Median(), even).tolist() == [2.5, 4.5, 0.5]


def test_trimmed_mean_by_hand() -> None:
    rows = np.array([[100.0, 1.0], [1.0, 1.0], [4.0, 1.0], [2.0, 3.0], [-7.0, -9.0]], dtype=np.float32)
    assert combine(TrimmedMean(), rows, attackers=0).tolist() == [20.0, -3 / 5]
    assert combine(TrimmedMean(), rows, attackers=1).tolist() == [7 / 3, 1.0]
    assert combine(TrimmedMean(), rows, attackers=2).tolist() == [2.0, 1.0]
    four = rows[:4]
    assert combine(TrimmedMean(), four, attackers=1).tolist() == [3.0, 1.0]


def test_a_given_trim_counts_and_not_the_attackers() -> None:
    rows = normal(10, 5)
    for trim, number in ((3, 3), (0.3, 3), (0.39, 3), (0.0, 0), (4, 4), (0.45, 4)):
        np.testing.assert_allclose(combine(TrimmedMean(trim=trim), rows, 1), dense_trimmed(rows, number), rtol=1e-12)


def test_a_share_that_floating_point_makes_too_small() -> None:
    assert 0.29 * 100 < 29
    rows = normal(100, 3)
    np.testing.assert_allclose(combine(TrimmedMean(trim=0.29), rows), dense_trimmed(rows, 29), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    ("num", "dimension"), [(1, 1), (1, 50), (2, 1), (2, 17), (3, 16), (7, 33), (16, 100), (33, 64), (100, 301)]
)
@pytest.mark.usefixtures("narrow")
def test_as_dense_computation(num: int, dimension: int, dtype: str) -> None:
    rows = normal(num, dimension, dtype)
    before = rows.copy()
    median = combine(Median(), rows)
    assert median.dtype == np.float64
    np.testing.assert_array_equal(median, np.median(rows.astype(np.float64), axis=0))
    for attackers in {0, (num - 1) // 4, (num - 1) // 2}:
        found = combine(TrimmedMean(), rows, attackers)
        np.testing.assert_allclose(found, dense_trimmed(rows, attackers), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(rows, before)  # only read


def test_as_dense_computation_in_blocks_of_their_usual_width() -> None:
    for num, dimension in ((3, 70_001), (1100, 1030)):
        rows = normal(num, dimension)
        np.testing.assert_array_equal(combine(Median(), rows), np.median(rows.astype(np.float64), axis=0))
        np.testing.assert_allclose(combine(TrimmedMean(), rows, 1), dense_trimmed(rows, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num", [4, 5, 20, 21])
def test_ties(num: int) -> None:
    rows = np.random.default_rng(num).integers(-1, 2, size=(num, 200)).astype(np.float32)
    np.testing.assert_array_equal(combine(Median(), rows), np.median(rows, axis=0))
    np.testing.assert_allclose(combine(TrimmedMean(), rows, 1), dense_trimmed(rows, 1), rtol=1e-12, atol=1e-15)


def test_largest_values_of_float32_do_not_overflow() -> None:
    most = float(np.finfo(np.float32).max)
    rows = np.full((4, 3), most, dtype=np.float32)
    for rule in RULES:
        assert combine(rule, rows, 1).tolist() == [most] * 3


def test_reductions() -> None:
    for num in (6, 7):  # trimmed of all but the middle, it is the median; of nothing, the mean
        rows = normal(num, 40)
        np.testing.assert_array_equal(combine(TrimmedMean(), rows, (num - 1) // 2), combine(Median(), rows))
        np.testing.assert_allclose(combine(TrimmedMean(trim=0), rows, 2), rows.astype(float).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num", [5, 12, 65])
@pytest.mark.usefixtures("narrow")
def test_order_changes_no_bit(rule: Rule, num: int) -> None:
    rows = normal(num, 100) * np.float32(10.0) ** np.random.default_rng(1).integers(-6, 6, size=(num, 1))
    rows = rows.astype(np.float32)
    rows[:, :40] *= np.random.default_rng(2).choice(np.array([-0.0, 0.0, 1.0], dtype=np.float32), size=(num, 40))
    whole = combine(rule, rows, 2)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(num)
        assert combine(rule, rows[order], 2).tobytes() == whole.tobytes()


def test_zeros_of_both_signs_come_out_as_plus_zero() -> None:
    zeros = np.array([[-0.0], [0.0], [-0.0]], dtype=np.float32)
    for rule in RULES:
        for rows in (zeros, zeros[[0, 2]], zeros[[1, 0, 2]]):
            assert not np.signbit(combine(rule, rows)).any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("narrow")
def test_number_of_threads_changes_no_bit(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, found = normal(21, 1001), []
    for cores in (1, 2, 3, 8):
        monkeypatch.setattr(columns, "usable_cores", lambda cores=cores: cores)
        found.append(combine(rule, rows, 4).tobytes())
    assert set(found) == {found[0]}


@pytest.mark.usefixtures("narrow")
def test_width_of_blocks_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal(60, 501)
    found = []
    for width in (1, 16, 100, 501):
        monkeypatch.setattr(columns, "_FEWEST_COLUMNS", width)
        found.append(combine(TrimmedMean(), rows, 9).tobytes())
    assert set(found) == {found[0]}


@pytest.mark.usefixtures("narrow")
def test_what_fails_in_a_thread_is_raised() -> None:
    def fails(block: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError(str(block.shape))

    for threads in (1, 2):
        with pytest.raises(ZeroDivisionError):
            over_sorted(Rows(list(normal(3, 100))), fails, threads=threads)


@pytest.mark.usefixtures("narrow")
def test_mixtures_of_rows() -> None:
    rows = normal(6, 100, "float64")
    mix = np.kron(np.eye(3), [[0.5, 0.5]])
    known = RuleRound(attackers=1, rng=np.random.default_rng(0))
    for rule, dense in ((Median(), np.median(mix @ rows, axis=0)), (TrimmedMean(), dense_trimmed(mix @ rows, 1))):
        found = rule.combine(Rows(list(rows)).mixed(mix), known).vector
        np.testing.assert_allclose(found, dense, rtol=1e-12, atol=1e-15)


def test_a_block_goes_where_it_is_told_to() -> None:
    rows = normal(4, 10)
    mix = np.full((2, 4), 0.25)
    for given_rows, dense in ((Rows(list(rows)), rows), (Rows(list(rows)).mixed(mix), mix @ rows)):
        out = np.empty((3, len(dense)))
        assert given_rows.block(slice(2, 5), out=out.T).base is out
        np.testing.assert_allclose(out.T, dense[:, 2:5], rtol=1e-6)
        np.testing.assert_allclose(given_rows.block(slice(2, 5)), dense[:, 2:5], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attackers", [1, 2, 7])
def test_breakdown_point(rule: Rule, attackers: int) -> None:
    honest = normal(attackers + 1, 20)
    hostile = np.full((attackers, 20), HUGE, dtype=np.float32)
    held = combine(rule, np.vstack([honest, hostile]), attackers)  # n = 2f + 1: the middle is an honest value
    np.testing.assert_array_equal(held, honest.max(axis=0))
    broken = combine(Median(), np.vstack([honest[1:], hostile]))  # n = 2f: half of them decide half
    assert (broken > HUGE / 3).all()
    broken = combine(TrimmedMean(trim=attackers - 1), np.vstack([honest[1:], hostile]), attackers)
    assert (broken > HUGE / 3).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attackers", [0, 1, 2, 5])
def test_too_few_rows_are_refused(rule: Rule, attackers: int) -> None:
    assert rule.fewest(attackers) == 2 * attackers + 1
    robust = Robust(rule=rule, attackers=attackers)
    if attackers:
        with pytest.raises(TooFewClientsError, match=f"at least {2 * attackers + 1} updates for {attackers} attacker"):
            aggregated(robust, normal(2 * attackers, 3))
    assert aggregated(robust, normal(2 * attackers + 1, 3)).num_clients == 2 * attackers + 1


def test_a_trim_below_the_attackers_is_refused() -> None:
    with pytest.raises(TooFewClientsError):
        aggregated(Robust(rule=TrimmedMean(trim=1), attackers=2), normal(50, 3))
    with pytest.raises(TooFewClientsError, match="at least 20 updates"):
        aggregated(Robust(rule=TrimmedMean(trim=0.1), attackers=2), normal(19, 3))
    assert aggregated(Robust(rule=TrimmedMean(trim=0.1), attackers=2), normal(20, 3)).num_clients == 20


@pytest.mark.parametrize("trim", [0, 2, 0.0, 0.01, 0.07, 0.1, 0.29, 0.3, 1 / 3, 11 / 30, 0.45, 0.49])
@pytest.mark.parametrize("attackers", [0, 1, 2, 3, 7, 11])
def test_fewest_is_what_trims_every_attacker(trim: float, attackers: int) -> None:
    rule = TrimmedMean(trim=trim)

    def holds(num: int) -> bool:
        cut = trim if isinstance(trim, int) else int(trim * num + 1e-9)
        return attackers <= cut and 2 * cut < num and 2 * attackers < num

    fewest = rule.fewest(attackers)
    assert fewest == next((num for num in range(1, 2000) if holds(num)), None)
    assert fewest is None or all(holds(num) for num in range(fewest, fewest + 200))


@pytest.mark.parametrize("trim", [-1, -0.1, 0.5, 1.0, 2.0, float("nan"), float("inf")])
def test_a_trim_out_of_range_is_refused(trim: float) -> None:
    with pytest.raises(SettingError, match=r"trim.*must be a whole number ≥ 0, or a share in \[0, 0\.5\), got"):
        TrimmedMean(trim=trim)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_reaches_a_rule(value: float) -> None:
    rows = normal(5, 3)
    rows[2, 1] = value
    with pytest.raises(NonFiniteUpdateError):
        aggregated(Robust(rule=Median(), attackers=1), rows)


@pytest.mark.parametrize("size", [1e101, 1e200, 1e308])
def test_what_can_not_be_squared_never_reaches_a_rule(size: float) -> None:
    rule = Robust(rule=Median(), attackers=1)
    delta = Params.from_arrays({"w": np.array([size, -size, 1.0])})
    update = Update(client="site-3", round=4, delta=delta, num_examples=1, num_steps=1)
    with pytest.raises(NonFiniteUpdateError, match=r"round 4: client `site-3`: its delta is longer than 1e\+100"):
        rule.accumulate(rule.zero(delta.spec), update, 1.0)
    fine = replace(update, delta=Params.from_arrays({"w": np.array([1e99, -1e99, 1.0])}))
    assert len(rule.accumulate(rule.zero(delta.spec), fine, 1.0).updates) == 1


@pytest.mark.parametrize("make", [Median, TrimmedMean, lambda: TrimmedMean(trim=0.2)])
def test_conforms(make: Callable[[], Rule]) -> None:
    for attackers in (0, 1):
        check_aggregator(Robust(rule=make(), attackers=attackers))


values = st.floats(min_value=-1e9, max_value=1e9, width=32)
anything = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), attackers=st.integers(0, 5), more=st.integers(1, 5), dimension=st.integers(1, 4))
def test_the_outcome_lies_between_honest_values(data: st.DataObject, attackers: int, more: int, dimension: int) -> None:
    honest = data.draw(arrays(np.float32, (attackers + more, dimension), elements=values))
    hostile = data.draw(arrays(np.float32, (attackers, dimension), elements=anything))
    rows = np.vstack([honest, hostile])
    least, most = honest.min(axis=0).astype(float), honest.max(axis=0).astype(float)
    median = combine(Median(), rows, attackers)
    assert (least <= median).all()
    assert (median <= most).all()
    trimmed = combine(TrimmedMean(), rows, attackers)
    slack = 1e-12 * np.maximum(np.abs(least), np.abs(most))  # a sum in float64 is rounded
    assert (least - slack <= trimmed).all()
    assert (trimmed <= most + slack).all()


def aggregated(robust: Robust, rows: np.ndarray) -> Aggregate:
    updates = [make_update(row, client=f"site-{i}") for i, row in enumerate(rows)]
    total = robust.zero(updates[0].delta.spec)
    for update in updates:
        total = robust.accumulate(total, update, 1.0)
    return robust.finish(total)
