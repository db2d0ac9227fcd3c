"""Arrays in and out of encryption, by several processes or threads where they are given."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from hanse.core.errors import EncodingError
from hanse.crypto.big import gmpy2
from hanse.crypto.fixed_point import FixedPoint, decoded
from hanse.crypto.paillier.array import EncryptedArray, plaintexts, require_array
from hanse.crypto.paillier.keys import PublicKey, SecretKey
from hanse.crypto.paillier.packing import Slots, single

_CHUNK = 256


def encrypt_array(
    key: PublicKey | SecretKey,
    values: np.ndarray,
    *,
    encoding: FixedPoint,
    slots: Slots | None = None,
    executor: Executor | None = None,
) -> EncryptedArray:
    """Encrypts numbers, each with fresh randomness of the operating system.

    Args:
      key: The public key; the holder of the secret one passes that, which is faster.
      values: `float64[n]`, or `[n, slots.count]` to pack a row into each ciphertext.
      encoding: Their scale and limit.
      slots: From `slots_for`; None for one number a ciphertext, with room for any number of additions.
      executor: Shares the work out. Processes help with a public key (each makes its own table, which takes a quarter
        of a second); Python's lock keeps threads from helping; a secret key stays in this process.

    Raises:
      EncodingError: A value is beyond the encoding's limit, or the shape does not fit the slots.
      NonFiniteUpdateError: A value is NaN or infinite.
      SettingError: There are no values.
    """
    require_array(values)
    public = key.public if isinstance(key, SecretKey) else key
    layout = single(public) if slots is None else slots
    plain = plaintexts(encoding.encode(values), layout)
    found = np.empty(len(plain), dtype=object)
    outcome = EncryptedArray(
        key=public, ciphertexts=found, slots=layout, fraction_bits=encoding.fraction_bits, bound=encoding.bound
    )  # refuses what does not fit before anything is encrypted
    pieces = [plain[at : at + _CHUNK] for at in range(0, len(plain), _CHUNK)]
    if executor is None or isinstance(key, SecretKey):
        done = (_encrypted(key, piece) for piece in pieces)
    else:
        sent = public.to_bytes()
        come = executor.map(_encrypted_elsewhere, [sent] * len(pieces), pieces)
        done = ([gmpy2.mpz(number) for number in piece] for piece in come)
    at = 0
    for piece in done:
        for number in piece:
            found[at] = number
            at += 1
    return outcome


def decrypt_integers(key: SecretKey, array: EncryptedArray, *, executor: Executor | None = None) -> np.ndarray:
    """The whole numbers, exactly: `object[n]` of int, or `[n, slots]` where there are several.

    Args:
      key: The secret key.
      array: From `encrypt_array`, or computed.
      executor: Threads share the work out: the powers are taken without Python's lock.

    Raises:
      EncodingError: Encrypted under another key, or a number is beyond its bound: the ciphertext was tampered with.
    """
    if array.key != key.public:
        raise EncodingError(f"an array encrypted under {array.key!r} can't be decrypted with {key!r}")
    n, half = key.public.n, key.public.n >> 1
    listed = array.ciphertexts.tolist()
    pieces = [listed[at : at + _CHUNK] for at in range(0, len(listed), _CHUNK)]
    rows: list[list[int]] = []
    for residues in (
        map(key.decrypt_residues, pieces) if executor is None else executor.map(key.decrypt_residues, pieces)
    ):
        rows += [array.slots.unpacked(m - n if m > half else m) for m in residues]
    if any(abs(number) > array.bound for row in rows for number in row):
        raise EncodingError("a decrypted number is beyond its stated bound: it is not what was encrypted")
    found = np.empty((len(rows), array.slots.count), dtype=object)
    for i, row in enumerate(rows):
        found[i] = row
    return found[:, 0] if array.slots.count == 1 else found


def decrypt_array(key: SecretKey, array: EncryptedArray, *, executor: Executor | None = None) -> np.ndarray:
    """The numbers, `float64[n]` or `[n, slots]`; arguments and errors as for `decrypt_integers`."""
    return decoded(decrypt_integers(key, array, executor=executor), array.fraction_bits)


def _encrypted(key: PublicKey | SecretKey, plain: list[int]) -> list[object]:
    public = key.public if isinstance(key, SecretKey) else key
    n, n_squared = public.n, public.n_squared
    return [(1 + n * (m % n)) * key.random_zero() % n_squared for m in plain]


_KEYS: dict[bytes, PublicKey] = {}  # of a worker process: the last key, with its table


def _encrypted_elsewhere(sent: bytes, plain: list[int]) -> list[int]:
    if sent not in _KEYS:
        _KEYS.clear()
        _KEYS[sent] = PublicKey.from_bytes(sent)
    return [int(number) for number in _encrypted(_KEYS[sent], plain)]  # type: ignore[call-overload]
