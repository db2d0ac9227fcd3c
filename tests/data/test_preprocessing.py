import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import StandardScaler

from hanse.core.errors import DataError, SettingError
from hanse.data.preprocessing import Scale, Standardize, preprocess_for
from hanse.data.schema import DataSchema

TABLE = arrays(
    np.float64,
    st.tuples(st.integers(0, 40), st.just(3)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False) | st.just(np.nan),
)


def add(parts):
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def test_moments_by_hand():
    x = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, 5.0]])
    step = Standardize()
    sums = step.local_statistics(x)
    assert {name: value.tolist() for name, value in sums.items()} == {
        "count": [2.0, 2.0],
        "sum": [4.0, 10.0],
        "sum_squares": [10.0, 50.0],
    }
    assert step.apply(x, sums).tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def test_agrees_with_scikit_learn_on_complete_data():
    x = np.random.default_rng(3).normal([1.0, -50.0, 1e4], [0.1, 20.0, 3.0], size=(500, 3))
    step = Standardize()
    mean, deviation = step.moments(step.local_statistics(x))
    wanted = StandardScaler().fit(x)
    np.testing.assert_allclose(mean, wanted.mean_, rtol=1e-12)
    np.testing.assert_allclose(deviation, wanted.scale_, rtol=1e-6)  # 1e4 against 3: seven digits cancel
    np.testing.assert_allclose(step.apply(x, step.local_statistics(x)), wanted.transform(x), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(TABLE, min_size=1, max_size=5))
def test_sums_of_clients_are_the_sums_of_the_pool(parts):
    step = Standardize()
    federated = add([step.local_statistics(part) for part in parts])
    pooled = step.local_statistics(np.concatenate(parts))
    for name, value in pooled.items():
        tolerance = 1e-12 * np.nansum(np.abs(np.concatenate(parts)) ** {"count": 0, "sum": 1, "sum_squares": 2}[name])
        np.testing.assert_allclose(federated[name], value, rtol=1e-12, atol=tolerance)


def test_federated_moments_are_pooled_moments_to_1e_12():
    rng = np.random.default_rng(0)
    parts = [rng.normal(k, 1 + k, size=(n, 4)) for k, n in enumerate((7, 5000, 1, 333))]
    step = Standardize()
    federated = step.moments(add([step.local_statistics(part) for part in parts]))
    for mine, wanted in zip(federated, step.moments(step.local_statistics(np.concatenate(parts))), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(x=TABLE, other=TABLE)
def test_output_is_always_finite(x, other):
    step = Standardize()
    prepared = step.apply(other, step.local_statistics(x))
    assert prepared.dtype == np.float32
    assert prepared.shape == other.shape
    assert np.isfinite(prepared).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, -3.3e-7])
def test_constant_column_becomes_zero_in_spite_of_rounding(value):
    x = np.full((1001, 1), value)
    step = Standardize()
    assert not step.apply(x, step.local_statistics(x)).any()


def test_spread_below_the_resolution_counts_as_none():
    x = np.array([[1e9], [1e9 + 1]])
    step = Standardize()
    assert step.apply(x, step.local_statistics(x)).tolist() == [[0.0], [0.0]]


def test_a_value_too_far_out_for_float32_stays_finite():
    step = Standardize()
    sums = step.local_statistics(np.array([[1e-148], [0.0]]))
    assert step.apply(np.array([[1e200]]), sums)[0, 0] == np.finfo(np.float32).max


def test_column_that_nobody_filled_in_becomes_zero():
    step = Standardize()
    sums = step.local_statistics(np.full((3, 1), np.nan))
    assert step.apply(np.array([[np.nan], [2.0]]), sums).tolist() == [[0.0], [0.0]]


def test_clip_bounds_outliers():
    x = np.array([[0.0]] * 99 + [[100.0]])
    step = Standardize(clip=2.0)
    assert step.apply(x, step.local_statistics(x)).max() == 2.0


def test_many_blocks_give_what_one_does():
    x = np.random.default_rng(1).normal(size=(10_000, 2))
    step = Standardize()
    sums = step.local_statistics(x)
    np.testing.assert_allclose(sums["sum_squares"], np.square(x).sum(axis=0), rtol=1e-12)
    wanted = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(step.apply(x, sums), wanted, atol=1e-6)


def test_inputs_are_left_alone():
    x = np.array([[1.0, np.nan], [2.0, 4.0]])
    before = x.copy()
    Standardize().apply(x, Standardize().local_statistics(x))
    np.testing.assert_array_equal(x, before)


def test_whole_numbers_are_taken():
    x = np.array([[0], [255]], dtype=np.uint8)
    step = Standardize()
    assert step.apply(x, step.local_statistics(x)).tolist() == [[-1.0], [1.0]]


def test_scope_follows_fit():
    assert Standardize().scope == "federated"
    assert Standardize(fit="client").scope == "client"
    assert Scale().scope == "client"


def test_refuses_images_with_a_hint():
    with pytest.raises(DataError, match=r"table of shape \[n, d\]; got inputs of shape \[2, 28, 28\]") as caught:
        Standardize().local_statistics(np.zeros((2, 28, 28)))
    assert "Scale" in caught.value.hint


def test_refuses_text_infinities_and_other_columns():
    step = Standardize()
    with pytest.raises(DataError, match="needs numbers"):
        step.local_statistics(np.array([["a"]]))
    with pytest.raises(DataError, match="column 1 holds an infinity"):
        step.local_statistics(np.array([[0.0, np.inf]]))
    with pytest.raises(DataError, match="column 0 holds an infinity"):
        step.local_statistics(np.array([[1e300, 0.0]]))
    with pytest.raises(DataError, match="column 1 holds an infinity"):
        step.apply(np.array([[0.0, -np.inf]]), step.local_statistics(np.zeros((1, 2))))
    with pytest.raises(DataError, match="3 columns; the statistics were fitted to 2"):
        step.apply(np.zeros((1, 3)), step.local_statistics(np.zeros((1, 2))))
    with pytest.raises(DataError, match="did not come"):
        step.apply(np.zeros((1, 3)), {})


@pytest.mark.parametrize("wrong", [{"fit": "server"}, {"clip": 0.0}, {"clip": -1.0}, {"clip": float("nan")}])
def test_refuses_wrong_settings(wrong):
    with pytest.raises(SettingError):
        Standardize(**wrong)


def test_scale_shifts_and_divides_any_shape():
    x = np.full((2, 3, 4), 255, dtype=np.uint8)
    prepared = Scale(divide_by=127.5, subtract=127.5).apply(x, {})
    assert prepared.dtype == np.float32
    assert prepared.shape == x.shape
    assert (prepared == 1.0).all()
    assert Scale().local_statistics(x) == {}


def test_scale_refuses_zero_and_text():
    for wrong in ({"divide_by": 0.0}, {"divide_by": float("inf")}, {"subtract": float("nan")}):
        with pytest.raises(SettingError):
            Scale(**wrong)
    with pytest.raises(DataError):
        Scale().apply(np.array(["a"]), {})


def test_auto_is_standardize_for_tables_alone():
    table = DataSchema(input_shape=(4,), target="number")
    image = DataSchema(input_shape=(28, 28), target="classes", classes=("a", "b"))
    assert preprocess_for(table, "auto") == Standardize()
    assert preprocess_for(image, "auto") is None
    assert preprocess_for(table, None) is None
    assert preprocess_for(image, Scale(divide_by=255)) == Scale(divide_by=255)
    with pytest.raises(SettingError):
        preprocess_for(table, "Auto")
