"""What is computed with encrypted numbers is what is computed with plain ones; what could go wrong is refused."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import EncodingError, NonFiniteUpdateError, SettingError
from hanse.crypto.fixed_point import FixedPoint
from hanse.crypto.paillier.array import EncryptedArray
from hanse.crypto.paillier.encrypt import decrypt_array, decrypt_integers, encrypt_array
from hanse.crypto.paillier.keys import generate_keys
from hanse.crypto.paillier.packing import Slots, room, slots_for
from tests.crypto.paillier.keys import known_key

ENCODING = FixedPoint(fraction_bits=16, limit=100)
few = settings(deadline=None, max_examples=15)
numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=4).map(np.array)


def encrypted(values: object, **kwargs: object) -> EncryptedArray:
    return encrypt_array(known_key(), np.asarray(values, dtype=float), encoding=ENCODING, **kwargs)  # type: ignore[arg-type]


def whole(values: np.ndarray) -> np.ndarray:
    return ENCODING.encode(values).astype(object)


@few
@given(numbers, st.data())
def test_sums_products_and_differences(left: np.ndarray, data: st.DataObject) -> None:
    right = np.array(data.draw(st.lists(st.floats(-100, 100), min_size=len(left), max_size=len(left))))
    x, y = encrypted(left), encrypt_array(known_key().public, right, encoding=ENCODING)
    assert (decrypt_integers(known_key(), x + y) == whole(left) + whole(right)).all()
    assert (decrypt_integers(known_key(), x - y) == whole(left) - whole(right)).all()
    assert (decrypt_integers(known_key(), x.plus(right, ENCODING)) == whole(left) + whole(right)).all()
    product = x.times(right, ENCODING)
    assert (decrypt_integers(known_key(), product) == whole(left) * whole(right)).all()
    np.testing.assert_allclose(decrypt_array(known_key(), product), left * right, atol=101 * 2.0**-16)


@few
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.data())
def test_histograms(values: list[float], data: st.DataObject) -> None:
    bins = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(values), max_size=len(values))))
    sums = encrypted(values).histogram(bins, 3)
    expected = [int(whole(np.array(values))[bins == b].sum()) for b in range(3)]
    assert decrypt_integers(known_key(), sums).tolist() == expected
    packed = sums.packed()
    assert len(packed) == 1
    assert decrypt_integers(known_key(), packed).ravel().tolist()[:3] == expected


@few
@given(st.integers(1, 40), st.sampled_from([-1.0, 1.0]), st.integers(0, 59))
def test_slots_hold_the_stated_number_of_additions_at_the_limit(additions: int, sign: float, at: int) -> None:
    """The largest sums of either sign beside the largest of the other: no slot runs into the next."""
    slots = slots_for(known_key().public, ENCODING.bound, additions=additions)
    row = np.full(slots.count, 100.0 * sign)
    row[at % slots.count :] *= -1
    one = encrypted(row[None], slots=slots)
    total = one.times(np.array([additions]), FixedPoint(fraction_bits=0, limit=additions))
    assert (decrypt_array(known_key(), total)[0] == row * additions).all()


def test_one_addition_too_many_is_refused() -> None:
    slots = slots_for(known_key().public, ENCODING.bound, additions=3)
    exact = replace(encrypted([[100.0] * slots.count], slots=slots), bound=slots.bound)
    with pytest.raises(EncodingError, match="could need"):
        exact + exact
    four = encrypted([[1.0] * slots.count] * 10, slots=slots)
    with pytest.raises(EncodingError, match="could need"):
        four.sum()
    with pytest.raises(EncodingError, match="could need"):
        four.plus(np.zeros((10, slots.count)), FixedPoint(fraction_bits=16, limit=2.0**30))


def test_products_that_outgrow_the_key_are_refused() -> None:
    x = encrypted([1.0])
    wide = FixedPoint(fraction_bits=50, limit=8)
    with pytest.raises(EncodingError, match="could need"):  # noqa: PT012
        for _ in range(50):
            x = x.times(np.array([1.0]), wide)


def test_values_beyond_the_limit_are_refused_and_not_told() -> None:
    with pytest.raises(EncodingError, match="beyond the limit of 100") as caught:
        encrypted([1.0, 123.456])
    assert "123" not in str(caught.value)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteUpdateError):
            encrypted([1.0, bad])
    with pytest.raises(SettingError, match="nothing to encrypt"):
        encrypted([])


def test_unlike_arrays_are_refused() -> None:
    x = encrypted([1.0, 2.0])
    other_scale = encrypt_array(known_key(), np.ones(2), encoding=FixedPoint(fraction_bits=8, limit=1))
    for bad in (encrypted([1.0]), other_scale):
        with pytest.raises(EncodingError, match="can't be"):
            x + bad
    with pytest.raises(EncodingError, match="fraction bits"):
        x.plus(np.ones(2), FixedPoint(fraction_bits=8, limit=1))
    with pytest.raises(EncodingError):
        x.plus(np.ones(3), ENCODING)
    with pytest.raises(EncodingError, match="shape"):
        x.times(np.ones(3), ENCODING)
    for bins in (np.array([0]), np.array([0, 3]), np.array([-1, 0])):
        with pytest.raises(EncodingError, match="bins"):
            x.histogram(bins, 3)
    with pytest.raises(EncodingError, match="slots a ciphertext"):
        encrypted([1.0, 2.0], slots=Slots(count=3, bits=40))
    with pytest.raises(EncodingError, match="has room for"):
        encrypted([[1.0] * 99], slots=Slots(count=99, bits=40))
    with pytest.raises(EncodingError, match="only single ones"):
        encrypted([[1.0, 2.0]], slots=Slots(count=2, bits=40)).packed()


def test_rerandomized_ciphertexts_hold_the_same() -> None:
    x = encrypted([1.5, -2.5])
    again = x.rerandomized()
    assert not set(x.ciphertexts) & set(again.ciphertexts)
    assert decrypt_array(known_key(), again).tolist() == [1.5, -2.5]


def test_equal_numbers_give_different_ciphertexts() -> None:
    both = [
        *encrypted([7.0] * 8).ciphertexts,
        *encrypt_array(known_key().public, np.full(8, 7.0), encoding=ENCODING).ciphertexts,
    ]
    assert len(set(both)) == 16


def test_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.crypto.paillier.encrypt._CHUNK", 8)
    values = np.linspace(-100, 100, 20)
    with ThreadPoolExecutor(2) as executor:
        x = encrypt_array(known_key().public, values, encoding=ENCODING, executor=executor)
        assert (decrypt_integers(known_key(), x, executor=executor) == whole(values)).all()


def test_bytes_and_back() -> None:
    slots = slots_for(known_key().public, ENCODING.bound, additions=10)
    for x in (encrypted([1.0, -2.0]), encrypted([[1.0] * slots.count], slots=slots)):
        again = EncryptedArray.from_bytes(known_key().public, x.to_bytes(), most=2)
        assert (again.ciphertexts == x.ciphertexts).all()
        assert (again.slots, again.bound, again.fraction_bits) == (x.slots, x.bound, x.fraction_bits)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_as_other_numbers(data: st.DataObject) -> None:
    """No damage does more than an `EncodingError`; what still can be read is never decrypted beyond its bound."""
    key, good = known_key(), _GOOD
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(good) - 600, len(good)))
    try:
        read = EncryptedArray.from_bytes(key.public, bytes(damaged[:cut]), most=4)
        found = decrypt_integers(key, read)
    except EncodingError:
        return
    assert (np.abs(found) <= read.bound).all()


_GOOD = encrypted([1.0, -2.0]).to_bytes()


def test_numbers_that_are_no_ciphertexts_are_refused() -> None:
    key = known_key().public
    good, width = encrypted([1.0]).to_bytes(), key.ciphertext_bytes
    p = known_key()._halves[0].prime
    for number, reason in (
        (0, "not in"),
        (key.n_squared, "not in"),
        (key.n, "shares a factor"),
        (5 * p, "shares a factor"),
    ):
        with pytest.raises(EncodingError, match=reason):
            EncryptedArray.from_bytes(key, good[:-width] + int(number).to_bytes(width, "big"), most=1)
    with pytest.raises(EncodingError, match="number of ciphertexts"):
        EncryptedArray.from_bytes(key, encrypted([1.0, 2.0]).to_bytes(), most=1)
    with pytest.raises(EncodingError, match="don't belong"):
        EncryptedArray.from_bytes(key, good + b"\0", most=1)


def test_a_tampered_number_is_found_out() -> None:
    key = known_key()
    x = encrypted([1.0])
    huge = replace(x, ciphertexts=x.ciphertexts * (1 + key.public.n * (1 << 1000)) % key.public.n_squared)
    with pytest.raises(EncodingError, match="beyond its stated bound"):
        decrypt_integers(key, huge)
    slots = Slots(count=2, bits=40)
    y = encrypted([[1.0, 2.0]], slots=slots)
    huge = replace(y, ciphertexts=y.ciphertexts * (1 + key.public.n * (1 << 1000)) % key.public.n_squared)
    with pytest.raises(EncodingError, match="larger than its slots"):
        decrypt_integers(key, huge)


def test_another_key_is_refused() -> None:
    other = generate_keys(2048)
    x = encrypted([1.0])
    with pytest.raises(EncodingError, match="can't be decrypted"):
        decrypt_integers(other, x)
    with pytest.raises(EncodingError, match="of another key"):
        EncryptedArray.from_bytes(other.public, x.to_bytes(), most=1)
    with pytest.raises(EncodingError, match="can't be added"):
        x + encrypt_array(other.public, np.ones(1), encoding=ENCODING)
    foreign = replace(x, key=other.public, ciphertexts=x.ciphertexts % other.public.n_squared)
    with pytest.raises(EncodingError, match="not what was encrypted"):
        decrypt_integers(other, foreign)


def test_slots() -> None:
    key = known_key().public
    assert room(key) == 2046
    assert slots_for(key, 1, additions=1) == Slots(count=1023, bits=2)
    assert slots_for(key, 2**15 - 1, additions=15).bits == 20
    for bad in ({"bound": 0, "additions": 1}, {"bound": 1, "additions": 0}, {"bound": 1 << 3000, "additions": 1}):
        with pytest.raises(SettingError):
            slots_for(key, bad["bound"], additions=bad["additions"])
    for bad_slots in ({"count": 0, "bits": 8}, {"count": 5000, "bits": 2}, {"count": 1, "bits": 1}):
        with pytest.raises(SettingError):
            Slots(**bad_slots)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 60), st.data())
def test_packing_is_undone(bits: int, data: st.DataObject) -> None:
    slots = Slots(count=5, bits=bits)
    row = data.draw(st.lists(st.integers(-slots.bound, slots.bound), min_size=5, max_size=5))
    assert slots.unpacked(gmpy2.mpz(slots.packed(row))) == row


def test_shows_no_ciphertexts() -> None:
    assert len(repr(encrypted([1.0]))) < 120


def test_processes_give_the_same() -> None:
    values = np.array([1.0, -2.0])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        x = encrypt_array(known_key().public, values, encoding=ENCODING, executor=executor)
        assert (decrypt_integers(known_key(), x) == whole(values)).all()
        with pytest.raises(TypeError, match="not pickled"):
            decrypt_integers(known_key(), x, executor=executor)
