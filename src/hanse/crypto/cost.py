"""What a scheme costs here, from a quick measurement of one chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hanse.crypto.additive import AdditiveHE


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one vector costs, extrapolated from one chunk.

    Args:
      bytes_each_way: Bytes that a site sends, and about what it gets back.
      encrypt_seconds: For a site: all its chunks, encrypted and written.
      add_seconds: For the server and one site: all chunks read, checked and added, and the sum written.
      decrypt_seconds: For a site: the sum.
    """

    bytes_each_way: int
    encrypt_seconds: float
    add_seconds: float
    decrypt_seconds: float


def measured(scheme: AdditiveHE, size: int, *, clock: Callable[[], float] = time.process_time) -> Cost:
    """Makes a key, encrypts, adds and decrypts one chunk, and multiplies by their number.

    What happens once (tables, caches) happens before the clock is looked at.

    Args:
      scheme: The scheme; with Paillier this takes seconds, with the others milliseconds.
      size: Numbers in a vector.
      clock: Seconds; by default of this process's processor time.
    """
    estimate = scheme.estimate(size)
    length = min(estimate.values_per_chunk, size)
    keys = scheme.make_keys()
    site, adder = scheme.site(keys.secret), scheme.adder(keys.public, length)
    values = np.ones(length, dtype=np.int64 if scheme.exact else np.float64)
    warm = scheme.adder(keys.public, length)
    warm.add(site.encrypt(values))
    site.decrypt(warm.total(), length)
    began = clock()
    chunks = list(site.encrypt(values))
    encrypted = clock()
    adder.add(chunks)
    total = list(adder.total())
    added = clock()
    site.decrypt(total, length)
    decrypted = clock()
    return Cost(
        bytes_each_way=estimate.chunks * len(chunks[0]),
        encrypt_seconds=estimate.chunks * (encrypted - began),
        add_seconds=estimate.chunks * (added - encrypted),
        decrypt_seconds=estimate.chunks * (decrypted - added),
    )
