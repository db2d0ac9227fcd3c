"""Every scheme's sums are the plain ones; what did not come from its key and its settings is refused."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import (
    EncodingError,
    MissingExtraError,
    NonFiniteUpdateError,
    PipelineError,
    SettingError,
    TooFewClientsError,
)
from hanse.crypto.additive import AdditiveHE, KeySet, Site
from hanse.crypto.bfv import Bfv
from hanse.crypto.ckks import Ckks
from hanse.crypto.cost import measured
from hanse.crypto.paillier import scheme as paillier
from hanse.crypto.paillier.scheme import PaillierSums
from hanse.crypto.schemes import SCHEMES, scheme
from tests.crypto.paillier.keys import known_key

ALL: dict[str, AdditiveHE] = {
    "bfv": Bfv(summands=5, limit=1000),
    "ckks": Ckks(summands=5, limit=1000.0),
    "paillier": PaillierSums(summands=5, limit=1000, bits=2048),
}
SIZES = {"bfv": 30_000, "ckks": 5_000, "paillier": 1_000}


@pytest.fixture(params=sorted(ALL))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def known_paillier_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key takes a second, and a chunk of 64 ciphertexts a quarter; what they are made of is tested elsewhere."""
    monkeypatch.setattr(paillier, "generate_keys", lambda bits: known_key())
    monkeypatch.setattr(paillier, "_PER_CHUNK", 4)


@cache
def keys(name: str) -> KeySet:
    return ALL[name].make_keys()


@cache
def site(name: str) -> Site:
    return ALL[name].site(keys(name).secret)


def vector(name: str, seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 1001, size) if ALL[name].exact else rng.uniform(-1000, 1000, size)


def summed(name: str, vectors: list[np.ndarray]) -> np.ndarray:
    adder = ALL[name].adder(keys(name).public, len(vectors[0]))
    for values in vectors:
        adder.add(site(name).encrypt(values))
    assert adder.summands == len(vectors)
    return site(name).decrypt(adder.total(), len(vectors[0]))


def tolerance(name: str) -> float:
    chosen = ALL[name]
    return 8 * chosen.error if isinstance(chosen, Ckks) else 0.0


@pytest.mark.parametrize("clients", [1, 5])
def test_sums_are_the_plain_ones(name: str, clients: int) -> None:
    vectors = [vector(name, seed, SIZES[name]) for seed in range(clients)]
    found = summed(name, vectors)
    assert found.dtype == (np.int64 if ALL[name].exact else np.float64)
    assert np.abs(found - sum(vectors)).max() <= tolerance(name)


@pytest.mark.parametrize("sign", [-1, 1])
def test_as_many_as_are_allowed_at_the_limit(name: str, sign: int) -> None:
    """Largest sums beside smallest ones: nothing runs over into its neighbour, and no error adds up to a wrong sum."""
    values = np.full(9_000 if name != "paillier" else 300, 1000 * sign)
    values[::2] *= -1
    given = values if ALL[name].exact else values.astype(float)
    assert np.abs(summed(name, [given] * 5) - 5 * values).max() <= tolerance(name)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 1 << 20), st.integers(0, 1 << 30))
def test_bfv_is_exact_whatever_its_settings(summands: int, limit: int, seed: int) -> None:
    chosen = Bfv(summands=summands, limit=limit)
    made = chosen.make_keys()
    holder, adder = chosen.site(made.secret), chosen.adder(made.public, 5_000)
    rng, total = np.random.default_rng(seed), np.zeros(5_000, dtype=np.int64)
    for _ in range(min(summands, 3)):
        values = rng.integers(-limit, limit + 1, 5_000)
        adder.add(holder.encrypt(values))
        total += values
    assert (holder.decrypt(adder.total(), 5_000) == total).all()


@pytest.mark.parametrize(("summands", "limit"), [(1, 2**47), (2, 2**45), (1000, 2**27), (1_000_000, 2000)])
def test_bfv_holds_to_its_edge(summands: int, limit: int) -> None:
    """One number a slot, hardly a bit to spare, and one ciphertext again and again: errors grow as fast as they can."""
    chosen = Bfv(summands=summands, limit=limit)
    assert chosen.lanes == 1
    made = chosen.make_keys()
    holder, adder = chosen.site(made.secret), chosen.adder(made.public, 4)
    values = np.array([limit, -limit, 0, 1])
    chunks, times = list(holder.encrypt(values)), min(summands, 1000)
    for _ in range(times):
        adder.add(chunks)
    assert (holder.decrypt(adder.total(), 4) == times * values).all()


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(PipelineError, match=r"100,000 clients' .* 1,073,741,824.* 49 bits.* 36") as caught:
        Bfv(summands=100_000, limit=1 << 30)
    fitting = int(str(caught.value.hint).split()[3].replace(",", ""))
    assert Bfv(summands=fitting, limit=1 << 30).lanes == 1
    with pytest.raises(PipelineError):
        Bfv(summands=fitting + 1, limit=1 << 30)
    with pytest.raises(PipelineError, match="bits would be left"):
        Ckks(summands=1000, limit=1e7)
    with pytest.raises(PipelineError, match="lower the limit"):
        Bfv(summands=1, limit=1 << 60)


@pytest.mark.parametrize(
    "given",
    [
        *({"summands": bad} for bad in (0, -1, 2_000_000, 1.5, True, "3", None)),
        *({"summands": 2, "limit": bad} for bad in (0, -1, float("nan"), float("inf"))),
    ],
)
def test_bad_settings(name: str, given: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        scheme(name, **given)


def test_bad_whole_numbers() -> None:
    for bad in (1.5, 7.0, 1 << 63):
        with pytest.raises((SettingError, PipelineError)):
            scheme("bfv", summands=2, limit=bad)
        with pytest.raises(SettingError):
            scheme("paillier", summands=2, limit=bad)
    for bits in (1024, 2049, 2048.0, 16384):
        with pytest.raises(SettingError):
            scheme("paillier", summands=2, bits=bits)


def test_one_client_too_many_is_refused(name: str) -> None:
    adder = ALL[name].adder(keys(name).public, 10)
    chunks = list(site(name).encrypt(vector(name, 0, 10)))
    for _ in range(5):
        adder.add(chunks)
    with pytest.raises(EncodingError, match="6 vectors are too many"):
        adder.add(chunks)


def test_no_vector_no_sum(name: str) -> None:
    with pytest.raises(TooFewClientsError):
        ALL[name].adder(keys(name).public, 10).total()


def test_bad_values_are_refused(name: str) -> None:
    dtype = np.int64 if ALL[name].exact else np.float64
    for values in (np.array([1001], dtype=dtype), np.array([0, -1001], dtype=dtype)):
        with pytest.raises(EncodingError, match="beyond the limit of 1000") as caught:
            site(name).encrypt(values)
        assert "1001" not in str(caught.value)
    for shape in (np.zeros(0, dtype=dtype), np.zeros((2, 2), dtype=dtype)):
        with pytest.raises(EncodingError, match="wanted a vector"):
            site(name).encrypt(shape)
    bad = np.array([np.nan])
    with pytest.raises(EncodingError if ALL[name].exact else NonFiniteUpdateError):
        site(name).encrypt(bad)


def test_equal_vectors_give_different_ciphertexts(name: str) -> None:
    values = vector(name, 0, 10)
    first, second = (next(site(name).encrypt(values)) for _ in range(2))
    assert first != second


def test_no_seed_is_taken(name: str) -> None:
    assert not {"seed", "rng"} & set(inspect.signature(ALL[name].make_keys).parameters)
    with pytest.raises(SettingError, match="takes no seed"):
        scheme(name, summands=3, seed=7)


def test_chunks_out_of_order_repeated_or_missing_are_refused_and_leave_no_trace(name: str) -> None:
    size = 2 * ALL[name].estimate(1).values_per_chunk + 1
    values = vector(name, 1, size)
    chunks = list(site(name).encrypt(values))
    assert len(chunks) == 3
    adder = ALL[name].adder(keys(name).public, size)
    adder.add(chunks)
    wrong = ([chunks[1], chunks[0], chunks[2]], [chunks[0], chunks[0], chunks[2]], chunks[:2], [*chunks, chunks[2]], [])
    for bad in wrong:
        with pytest.raises(EncodingError):
            adder.add(bad)
        with pytest.raises(EncodingError):
            site(name).decrypt(bad, size)
    assert adder.summands == 1
    assert np.abs(site(name).decrypt(adder.total(), size) - values).max() <= tolerance(name)


def test_a_sum_is_not_taken_for_a_vector_and_sizes_must_agree(name: str) -> None:
    adder = ALL[name].adder(keys(name).public, 10)
    chunks = list(site(name).encrypt(vector(name, 0, 10)))
    adder.add(chunks)
    adder.add(chunks)
    with pytest.raises(EncodingError, match="a sum of 2 vectors"):
        adder.add(adder.total())
    with pytest.raises(EncodingError, match="size"):
        adder.add(site(name).encrypt(vector(name, 0, 11)))
    with pytest.raises(EncodingError, match="size"):
        site(name).decrypt(adder.total(), 11)


def damage(good: bytes, change: Callable[[bytearray], object]) -> bytes:
    changed = bytearray(good)
    change(changed)
    return bytes(changed)


def test_sums_that_lie_about_their_summands_are_refused(name: str) -> None:
    adder = ALL[name].adder(keys(name).public, 3)
    full = np.array([1000, -1000, 1000]) if ALL[name].exact else np.array([1000.0, -1000.0, 1000.0])
    for _ in range(3):
        adder.add(site(name).encrypt(full))
    (chunk,) = adder.total()
    with pytest.raises(EncodingError, match="no sum of 1 vectors can hold"):
        site(name).decrypt([damage(chunk, lambda b: b.__setitem__(slice(25, 29), (1).to_bytes(4, "big")))], 3)
    with pytest.raises(EncodingError, match="adds up 5 at most"):
        site(name).decrypt([damage(chunk, lambda b: b.__setitem__(slice(25, 29), (6).to_bytes(4, "big")))], 3)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_chunks_do_no_more_than_raise(data: st.DataObject) -> None:
    """Half of the damage goes to the first bytes, where the structure is; and what is read still is a sum."""
    kind = data.draw(st.sampled_from(sorted(ALL)))
    good = _one_chunk(kind)
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([150, len(good)])) - 1
        changed[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(good), len(good), data.draw(st.integers(0, len(good)))]))
    try:
        found = site(kind).decrypt([bytes(changed[:cut])], 5)
    except EncodingError:
        return
    assert np.abs(found).max() <= 1001


@cache
def _one_chunk(name: str) -> bytes:
    return next(site(name).encrypt(vector(name, 0, 5)))


@pytest.mark.parametrize("name", ["bfv", "ckks"])  # Paillier's: tests/crypto/paillier/test_array.py
def test_another_key_is_refused(name: str) -> None:
    """By its name; and by what it decrypts to, should somebody give it the same one."""
    other = ALL[name].make_keys()
    stranger = ALL[name].site(other.secret)
    chunks = list(site(name).encrypt(vector(name, 0, 10)))
    with pytest.raises(EncodingError, match="under another key"):
        stranger.decrypt(chunks, 10)
    with pytest.raises(EncodingError, match="under another key"):
        ALL[name].adder(other.public, 10).add(chunks)
    (alien,) = stranger.encrypt(vector(name, 0, 10))
    renamed = damage(chunks[0], lambda b: b.__setitem__(slice(5, 21), alien[5:21]))
    with pytest.raises(EncodingError, match="another key"):
        stranger.decrypt([renamed], 10)


def test_keys_of_other_settings_or_schemes_are_refused(name: str) -> None:
    other = scheme(name, summands=6, limit=1000)
    with pytest.raises(EncodingError, match="summands=6"):
        other.site(keys(name).secret)
    with pytest.raises(EncodingError, match="same settings"):
        other.adder(keys(name).public, 10)
    for third in sorted(set(ALL) - {name}):
        with pytest.raises(EncodingError, match="a key for"):
            ALL[third].adder(keys(name).public, 10)


def test_malformed_keys_are_refused(name: str) -> None:
    public, secret = keys(name).public, keys(name).secret
    for cut in (0, 3, 5, 8, 12, 30, len(public) - 1):
        with pytest.raises(EncodingError):
            ALL[name].adder(public[:cut], 10)
        with pytest.raises(EncodingError):
            ALL[name].site(secret[:cut])
    for bad in (public + b"\0", secret):
        with pytest.raises(EncodingError):
            ALL[name].adder(bad, 10)
    with pytest.raises(EncodingError):
        ALL[name].site(public)
    broken = damage(secret, lambda b: b.__setitem__(slice(len(public) + 13, len(public) + 23), bytes(10)))
    with pytest.raises(EncodingError):
        ALL[name].site(broken)


def test_a_context_of_other_parameters_is_refused() -> None:
    """Its frame says one thing, the key in it is another's."""
    two, three = Bfv(summands=5, limit=1000), Bfv(summands=500, limit=1000)
    ours, theirs = two.make_keys(), three.make_keys()
    head = len(ours.public) + 9
    their_head = len(theirs.public) + 9
    mixed = ours.secret[:head] + theirs.secret[their_head:]
    with pytest.raises(EncodingError, match="other parameters"):
        two.site(mixed)


def test_the_public_part_holds_no_secret_and_nothing_shows_it(name: str) -> None:
    made = keys(name)
    assert made.secret not in (made.public,)
    assert "secret" not in repr(made)
    assert len(repr(site(name))) < 60
    assert len(made.public) < 1500


def test_the_server_cannot_decrypt() -> None:
    for name in ("bfv", "ckks"):
        adder = ALL[name].adder(keys(name).public, 10)
        adder.add(site(name).encrypt(vector(name, 0, 10)))
        (held,) = adder._sum  # type: ignore[attr-defined]
        assert not held.context().has_secret_key()
        with pytest.raises(ValueError, match="secret_key"):
            held.decrypt()


def test_estimates_are_upper_bounds_and_close(name: str) -> None:
    size = SIZES[name]
    estimate = ALL[name].estimate(size)
    chunks = list(site(name).encrypt(vector(name, 0, size)))
    sent = sum(map(len, chunks))
    assert len(chunks) == estimate.chunks
    assert 0.9 * estimate.bytes_each_way <= sent <= estimate.bytes_each_way
    assert len(keys(name).public) <= estimate.public_bytes * 1.1
    assert len(keys(name).secret) <= estimate.secret_bytes * 1.1


def test_a_cnn_takes_forty_megabytes_at_most() -> None:
    assert Bfv(summands=15).estimate(1_663_370).bytes_each_way < 15e6
    assert Bfv(summands=10_000).estimate(1_663_370).bytes_each_way < 40e6


def test_costs_come_from_the_clock(name: str) -> None:
    ticks = iter(range(0, 100, 3))
    cost = measured(ALL[name], SIZES[name], clock=lambda: next(ticks))
    chunks = ALL[name].estimate(SIZES[name]).chunks
    assert (cost.encrypt_seconds, cost.add_seconds, cost.decrypt_seconds) == (3 * chunks,) * 3
    assert 0.8 < cost.bytes_each_way / ALL[name].estimate(SIZES[name]).bytes_each_way <= 1


def test_names() -> None:
    assert {name: type(scheme(name, summands=3)).__name__ for name in SCHEMES} == {
        "bfv": "Bfv",
        "ckks": "Ckks",
        "paillier": "PaillierSums",
    }
    assert all(isinstance(one, AdditiveHE) for one in ALL.values())
    with pytest.raises(SettingError, match="there is no `bgv`") as caught:
        scheme("bgv")
    assert "bfv" in str(caught.value.hint)
    with pytest.raises(SettingError, match="can't be made with"):
        scheme("bfv", clients=3)


def test_other_packages_add_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    points = [EntryPoint("mine", "hanse.crypto.bfv:Bfv", "hanse.additive_he"), EntryPoint("odd", "builtins:dict", "x")]
    points.append(EntryPoint("gone", "no.such_module:Scheme", "x"))
    monkeypatch.setattr("hanse.crypto.schemes.entry_points", lambda group: points)
    assert isinstance(scheme("mine", summands=2), Bfv)
    with pytest.raises(SettingError, match="lacks methods"):
        scheme("odd")
    with pytest.raises(SettingError, match="can't be imported"):
        scheme("gone")


def test_a_vector_is_encrypted_as_it_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the adder reads a vector's chunks once, one after another: neither needs all of them at a time."""
    holder = site(name)
    cipher, calls = holder._cipher, []  # type: ignore[attr-defined]
    original = cipher.encrypt
    monkeypatch.setattr(cipher, "encrypt", lambda values: calls.append(len(values)) or original(values))
    width = cipher.values_per_chunk
    chunks = holder.encrypt(vector(name, 0, 3 * width))
    assert calls == []
    next(chunks)
    next(chunks)
    assert calls == [width, width]


@pytest.mark.parametrize(
    ("module", "package"),
    [("big", "gmpy2"), ("seal", "tenseal"), ("key_transport", "cryptography.hazmat.primitives.kdf.hkdf")],
)
def test_a_missing_package_is_named_by_its_extra(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = importlib.import_module(f"hanse.crypto.{module}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        importlib.reload(loaded)
    assert "hanse[he]" in str(caught.value.hint)
