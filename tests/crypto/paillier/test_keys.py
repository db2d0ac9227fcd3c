"""Paillier's keys against reference vectors, and what is refused as one."""

from __future__ import annotations

import inspect
import pickle

import gmpy2
import pytest

from hanse.core.errors import EncodingError, SettingError
from hanse.crypto.paillier.keys import PublicKey, SecretKey, generate_keys
from hanse.crypto.paillier.primes import blum_prime, has_small_factor
from tests.crypto.paillier.keys import known_key, vectors


@pytest.fixture(scope="module")
def fresh() -> SecretKey:
    return generate_keys(2048)


def test_vectors_decrypt() -> None:
    given, key = vectors(), known_key()
    listed = [*given["textbook"], *given["short"], given["sum of random and largest"], given["random times 12345"]]
    plain = key.decrypt_residues([gmpy2.mpz(one["c"]) for one in listed])
    assert [hex(m) for m in plain] == [one["m"] for one in listed]


def test_vectors_are_encrypted_alike() -> None:
    key = known_key().public
    key.random_zero()  # makes the table
    table = key._table
    assert table is not None
    for one in vectors()["short"]:
        r = int(one["r"], 16)
        encrypted = (1 + key.n * int(one["m"], 16)) * table.power(r.to_bytes(128, "little")) % key.n_squared
        assert hex(encrypted) == one["c"]


def test_h_s_of_the_vectors_is_that_of_the_definition() -> None:
    given, n = vectors(), int(known_key().public.n)
    assert pow(-(int(given["x"], 16) ** 2) % n, n, n * n) == int(given["h_s"], 16)


def test_a_fresh_key_is_sound(fresh: SecretKey) -> None:
    public = fresh.public
    assert public.bits == 2048
    p, q = (int(half.prime) for half in fresh._halves)
    assert p * q == public.n
    assert p % 4 == q % 4 == 3
    assert gmpy2.gcd(p - 1, q - 1) == 2
    assert not has_small_factor((p - 1) // 2)
    assert gmpy2.powmod(public.h_s, (p - 1) * (q - 1), public.n_squared) == 1  # an n-th power
    assert fresh.decrypt_residues([public.random_zero(), public.uniform_zero(), fresh.random_zero()]) == [0, 0, 0]


def test_each_zero_is_another() -> None:
    key = known_key()
    zeros = [make() for make in (key.public.random_zero, key.public.uniform_zero, key.random_zero) for _ in range(20)]
    assert len(set(zeros)) == len(zeros)


def test_the_owner_draws_from_all_n_th_powers() -> None:
    """Modulo p² and q² apart, not the same exponent for both."""
    key = known_key()
    zero = key.random_zero()
    p, q = (half.prime for half in key._halves)
    assert gmpy2.powmod(zero, p - 1, p * p) == 1
    assert gmpy2.powmod(zero, q - 1, q * q) == 1


@pytest.mark.parametrize("bits", [512, 1024, 2047, 2049, 2100, 8320, 0, -1, 2048.0, True, "3072", None])
def test_other_lengths_are_refused(bits: object) -> None:
    with pytest.raises(SettingError, match="2048 to 8192"):
        generate_keys(bits)  # type: ignore[arg-type]


def test_no_seed_is_taken() -> None:
    for function in (generate_keys, blum_prime, PublicKey.random_zero, SecretKey.random_zero):
        assert not {"seed", "rng", "generator"} & set(inspect.signature(function).parameters)


def test_short_keys_from_outside_are_refused() -> None:
    p, q = blum_prime(512), blum_prime(512)
    with pytest.raises(EncodingError, match="1024 bits; allowed are 2048"):
        PublicKey(int(p * q), 4)
    with pytest.raises(EncodingError, match="1024 bits; allowed are 2048"):
        SecretKey(int(p), int(q), 4)


def test_what_is_no_modulus_is_refused() -> None:
    key = known_key().public
    prime = int(gmpy2.next_prime(gmpy2.mpz(1) << 2050))
    for n in (prime, int(gmpy2.next_prime(gmpy2.mpz(1) << 1025)) ** 2, int(key.n) * 3, int(key.n) + 1):
        with pytest.raises(EncodingError, match="product of two large primes"):
            PublicKey(n, 4)
    for h_s in (0, 1, int(key.n_squared), int(key.n), 7 * int(known_key()._halves[0].prime)):
        with pytest.raises(EncodingError, match="h_s"):
            PublicKey(int(key.n), h_s)


def test_what_are_no_primes_of_a_key_is_refused() -> None:
    p, q = (int(half.prime) for half in known_key()._halves)
    for pair in ((p, p), (p, q + 2), (p, int(gmpy2.next_prime(q << 1)))):
        with pytest.raises(EncodingError, match="not the primes"):
            SecretKey(*pair, 4)


def test_keys_survive_bytes_and_pickling_does_not_take_the_secret() -> None:
    key = known_key()
    assert PublicKey.from_bytes(key.public.to_bytes()) == key.public
    assert pickle.loads(pickle.dumps(key.public)) == key.public
    again = SecretKey.from_bytes(key.to_bytes())
    assert again.public == key.public
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def test_nothing_shows_the_secret() -> None:
    key = known_key()
    secrets = [str(int(half.prime)) for half in key._halves] + [hex(half.prime)[2:] for half in key._halves]
    shown = [repr(key), str(key), f"{key}", repr(key.public), repr(key._halves)]
    assert not any(secret[:20] in text for secret in secrets for text in shown)


def test_malformed_keys_are_refused() -> None:
    key = known_key()
    for read, good in ((PublicKey.from_bytes, key.public.to_bytes()), (SecretKey.from_bytes, key.to_bytes())):
        for cut in (0, 1, 4, 5, 8, 9, 100, len(good) - 1):
            with pytest.raises(EncodingError):
                read(good[:cut])
        for bad in (good + b"\0", b"x" + good[1:], good[:5] + b"\xff\xff\xff\xff" + good[9:]):
            with pytest.raises(EncodingError):
                read(bad)
    good = key.public.to_bytes()
    padded = good[:5] + (257).to_bytes(4, "big") + b"\0" + good[9:]
    with pytest.raises(EncodingError, match="leading zeros"):
        PublicKey.from_bytes(padded)
    with pytest.raises(EncodingError, match="must be bytes"):
        PublicKey.from_bytes("text")  # type: ignore[arg-type]
