"""`Params` as a vector space, over NumPy and torch alike."""

from __future__ import annotations

import hashlib
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import SpecMismatchError
from hanse.core.params import Params, ParamSpec, TensorSpec

SPEC = ParamSpec(
    (TensorSpec("body.w", (2, 3)), TensorSpec("head.w", (2,)), TensorSpec("steps", (), "int64", trainable=False))
)
LIBRARIES = ("numpy", "torch")


def vector(library: str, values: Any) -> Any:
    array = np.array(values, dtype=np.float32)
    return array if library == "numpy" else torch.from_numpy(array)


def make(library: str, values: Any = range(9)) -> Params:
    return Params(SPEC, vector(library, list(values)))


finite = st.lists(st.floats(-1e3, 1e3, width=32), min_size=9, max_size=9)
scalars = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 4.0])  # powers of two: exact in every type


@pytest.mark.parametrize("library", LIBRARIES)
@settings(deadline=None, max_examples=40)
@given(a=finite, b=finite, scalar=scalars)
def test_vector_space_laws(library: str, a: list[float], b: list[float], scalar: float) -> None:
    x, y = make(library, a), make(library, b)
    zero = x.zeros_like()
    np.testing.assert_array_equal((x + y).numpy(), (y + x).numpy())
    np.testing.assert_array_equal((x + zero).numpy(), x.numpy())
    np.testing.assert_array_equal((x - x).numpy(), zero.numpy())
    np.testing.assert_array_equal((-x).numpy(), (-1 * x).numpy())
    np.testing.assert_array_equal((scalar * x).numpy(), (x * scalar).numpy())
    np.testing.assert_allclose((scalar * (x + y)).numpy(), (scalar * x + scalar * y).numpy(), rtol=1e-5, atol=1e-3)
    if scalar:
        np.testing.assert_array_equal((x / scalar).numpy(), (x * (1 / scalar)).numpy())


@settings(deadline=None, max_examples=40)
@given(a=finite, b=finite)
def test_numpy_and_torch_agree(a: list[float], b: list[float]) -> None:
    np.testing.assert_array_equal(
        (make("numpy", a) + 0.5 * make("numpy", b)).numpy(), (make("torch", a) + 0.5 * make("torch", b)).numpy()
    )
    assert make("numpy", a).sha256() == make("torch", a).sha256()
    assert make("numpy", a).l2_norm() == pytest.approx(make("torch", a).l2_norm(), rel=1e-12)
    assert make("numpy", a).dot(make("numpy", b)) == pytest.approx(
        make("torch", a).dot(make("torch", b)), rel=1e-12, abs=1e-6
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_arithmetic_leaves_operands_alone(library: str) -> None:
    x, y = make(library), make(library)
    for made in (x + y, x - y, -x, 2 * x, x / 2, x.copy(), x.zeros_like()):
        made.vector[0] = 99.0
    np.testing.assert_array_equal(x.numpy(), np.arange(9, dtype=np.float32))
    np.testing.assert_array_equal(y.numpy(), np.arange(9, dtype=np.float32))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2.0), np.float32(2.0)])
def test_a_number_of_any_kind_keeps_the_vectors_type(library: str, scalar: Any) -> None:
    x = make(library)
    for scaled in (x * scalar, scalar * x):
        assert isinstance(scaled, Params)
        assert scaled.numpy().dtype == np.float32
        np.testing.assert_array_equal(scaled.numpy(), 2 * np.arange(9, dtype=np.float32))
    assert (x / scalar).numpy().dtype == np.float32


@pytest.mark.parametrize("library", LIBRARIES)
def test_norm_and_dot_accumulate_in_float64(library: str) -> None:
    # 1 + 2^-24 is not a float32: a float32 sum of squares would stay at 1
    spec = ParamSpec((TensorSpec("w", (2,)),))
    x = Params(spec, vector(library, [1.0, 2.0**-12]))
    assert x.l2_norm() == math.sqrt(1 + 2.0**-24)
    assert x.dot(x) == 1 + 2.0**-24


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, 2.0], True),
        ([3e38, 3e38], True),  # their sum is not a float32, they are
        ([math.nan, 0.0], False),
        ([math.inf, 0.0], False),
        ([math.inf, -math.inf], False),
        ([-math.inf, -math.inf], False),
    ],
)
def test_is_finite(library: str, values: list[float], *, finite: bool) -> None:
    x = Params(ParamSpec((TensorSpec("w", (2,)),)), vector(library, values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.is_finite() is finite


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_finite_and_has_no_length(library: str) -> None:
    nothing = Params(ParamSpec(()), vector(library, []))
    assert nothing.is_finite()
    assert nothing.l2_norm() == 0.0
    assert nothing.sha256() == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("library", LIBRARIES)
def test_norm_passes_non_finite_values_through(library: str, bad: float) -> None:
    norm = Params(ParamSpec((TensorSpec("w", (2,)),)), vector(library, [1.0, bad])).l2_norm()
    assert not math.isfinite(norm)


def test_sha256_is_that_of_the_little_endian_bytes_and_never_changes() -> None:
    params = Params.from_arrays({"w": np.array([1.0, -2.5], dtype=np.float32)})
    assert params.sha256() == hashlib.sha256(b"\x00\x00\x80\x3f\x00\x00\x20\xc0").hexdigest()
    big_endian = params.with_vector(params.vector.astype(">f4"))
    assert big_endian.sha256() == params.sha256()
    assert (2 * params).sha256() != params.sha256()


class TestLayout:
    def test_trainable_first_then_buffers(self) -> None:
        params = Params.from_arrays(
            {"mean": np.ones(2, np.float32), "w": np.full((1, 2), 7, np.float32)}, buffers=["mean"]
        )
        assert [t.name for t in params.spec.tensors] == ["w", "mean"]
        assert params.spec.num_trainable == 2
        np.testing.assert_array_equal(params.vector, [7, 7, 1, 1])

    def test_from_arrays_takes_the_widest_trainable_type(self) -> None:
        mixed = {"a": np.ones(1, np.float32), "b": np.ones(1, np.float64), "c": np.ones(1, np.int64)}
        assert Params.from_arrays(mixed).spec.dtype == "float64"
        assert Params.from_arrays(mixed, buffers=["b"]).spec.dtype == "float32"
        assert Params.from_arrays({"c": np.ones(1, np.int64)}).spec.dtype == "float32"
        assert Params.from_arrays(mixed, dtype="float32").vector.dtype == np.float32

    def test_arrays_have_their_own_types_and_shapes(self) -> None:
        arrays = {"w": np.arange(6, dtype=np.float64).reshape(2, 3), "steps": np.array(3, dtype=np.int64)}
        back = Params.from_arrays(arrays, buffers=["steps"]).arrays()
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype
            np.testing.assert_array_equal(back[name], array)

    def test_whole_numbers_are_rounded_not_cut(self) -> None:
        mean = make("numpy", [0, 0, 0, 0, 0, 0, 0, 0, 2.9999999])
        assert mean.arrays()["steps"] == 3

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_arrays_are_views_where_the_type_agrees(self, library: str) -> None:
        params = make(library)
        params.arrays()["body.w"][1, 0] = 42.0
        assert float(params.vector[3]) == 42.0

    def test_iterates_over_names(self) -> None:
        assert list(make("numpy")) == ["body.w", "head.w", "steps"]

    def test_sizes(self) -> None:
        assert (SPEC.size, SPEC.num_trainable, SPEC.nbytes) == (9, 8, 36)
        assert ParamSpec(SPEC.tensors, "float64").nbytes == 72

    def test_matching_patterns(self) -> None:
        assert SPEC.matching(("head.*", "steps")) == {"head.w", "steps"}
        assert SPEC.matching(("*",)) == {"body.w", "head.w", "steps"}
        assert SPEC.matching(("nothing",)) == frozenset()


@pytest.mark.parametrize("library", LIBRARIES)
class TestParts:
    def test_select_and_overlay_undo_each_other(self, library: str) -> None:
        whole = make(library)
        head, rest = SPEC.without(frozenset({"body.w", "steps"})), SPEC.without(frozenset({"head.w"}))
        np.testing.assert_array_equal(whole.select(head).numpy(), [6, 7])
        np.testing.assert_array_equal(whole.select(rest).numpy(), [0, 1, 2, 3, 4, 5, 8])
        zero = whole.zeros_like()
        both = zero.overlay(whole.select(head)).overlay(whole.select(rest))
        np.testing.assert_array_equal(both.numpy(), whole.numpy())
        np.testing.assert_array_equal(zero.numpy(), np.zeros(9))

    def test_of_nothing_and_of_all(self, library: str) -> None:
        whole = make(library)
        nothing = whole.select(ParamSpec(()))
        assert nothing.spec.size == 0
        np.testing.assert_array_equal(whole.overlay(nothing).numpy(), whole.numpy())
        np.testing.assert_array_equal(whole.select(SPEC).numpy(), whole.numpy())
        np.testing.assert_array_equal(whole.zeros_like().overlay(whole).numpy(), whole.numpy())

    def test_overlay_never_shares_memory_with_its_operands(self, library: str) -> None:
        whole, other = make(library), make(library)
        whole.zeros_like().overlay(other).vector[0] = 99.0
        assert float(other.vector[0]) == 0.0

    def test_unknown_tensor(self, library: str) -> None:
        stranger = ParamSpec((TensorSpec("tail.w", (2,)),))
        with pytest.raises(SpecMismatchError, match=r"`tail\.w`"):
            make(library).select(stranger)
        with pytest.raises(SpecMismatchError, match=r"`tail\.w`"):
            make(library).overlay(Params(stranger, vector(library, [0, 0])))

    def test_tensor_of_another_shape(self, library: str) -> None:
        stranger = ParamSpec((TensorSpec("body.w", (3, 2)),))
        with pytest.raises(SpecMismatchError, match=r"float32\[3, 2\]; wanted float32\[2, 3\]"):
            make(library).select(stranger)


class TestBadInput:
    def test_vector_of_another_length(self) -> None:
        with pytest.raises(SpecMismatchError, match="9 parameters"):
            Params(SPEC, np.zeros(8, np.float32))

    def test_name_twice(self) -> None:
        with pytest.raises(SpecMismatchError, match="twice"):
            ParamSpec((TensorSpec("w", (1,)), TensorSpec("w", (2,))))

    def test_buffer_before_trainable(self) -> None:
        with pytest.raises(SpecMismatchError, match="trainable tensors first"):
            ParamSpec((TensorSpec("mean", (1,), trainable=False), TensorSpec("w", (1,))))

    def test_sum_of_two_layouts(self) -> None:
        with pytest.raises(SpecMismatchError, match="lacks `steps`"):
            make("numpy") + Params(SPEC.without(frozenset({"steps"})), np.zeros(8, np.float32))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda t: (TensorSpec("fc", (2,)), *t[1:]), "has `fc` as float32[2], which is unknown here"),
            (lambda t: (TensorSpec("body.w", (3, 2)), *t[1:]), "has `body.w` as float32[3, 2]; wanted float32[2, 3]"),
            (lambda t: (t[0], TensorSpec("head.w", (2,), "float64"), t[2]), "as float64[2]; wanted float32[2]"),
            (lambda t: (t[0], t[1], TensorSpec("steps", (), "int64")), "as int64[]; wanted int64[] buffer"),
            (lambda t: t[:2], "lacks `steps`"),
            (lambda t: (t[1], t[0], t[2]), "another order"),
        ],
    )
    def test_difference_in_words(self, change: Any, words: str) -> None:
        difference = SPEC.difference(ParamSpec(change(SPEC.tensors)))
        assert difference is not None
        assert words in difference

    def test_difference_of_the_vectors_type(self) -> None:
        assert SPEC.difference(ParamSpec(SPEC.tensors, "float64")) == "has a vector of float64; wanted float32"
        assert SPEC.difference(ParamSpec(SPEC.tensors)) is None
