"""The two secrets of a client in one session, and how shares of them are written.

A share is two halves, each packed as `shamir.pack` does: of the client's own seed (16 bytes, 8 symbols), and of its
private mask key (32 bytes, 16 symbols). A holder gives one half away, never both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hanse.core.random_bytes import RandomBytes
from hanse.secagg import shamir
from hanse.secagg.key_agreement import KEY_BYTES
from hanse.secagg.mask_stream import SEED_BYTES
from hanse.secagg.transcript import share_digest

SEED_SYMBOLS = SEED_BYTES // 2
KEY_SYMBOLS = KEY_BYTES // 2


@dataclass(frozen=True)
class Share:
    """What a holder has of one client; not shown by `repr`."""

    of_seed: bytes = field(repr=False)
    of_key: bytes = field(repr=False)

    def packed(self) -> bytes:
        """Both halves."""
        return self.of_seed + self.of_key

    @staticmethod
    def unpacked(packed: bytes) -> Share | None:
        """Both halves again; None where their length is wrong."""
        cut = shamir.packed_bytes(SEED_SYMBOLS)
        right = len(packed) == cut + shamir.packed_bytes(KEY_SYMBOLS)
        return Share(packed[:cut], packed[cut:]) if right else None

    def digests(self, roster: bytes, owner: int, holder: int) -> bytes:
        """What the owner publishes of this share: 16 bytes for each half."""
        halves = (self.of_seed, self.of_key)
        return b"".join(share_digest(roster, owner, holder, half) for half in halves)


def make_shares(
    seed: bytes, private: bytes, holders: np.ndarray, *, threshold: int, source: RandomBytes
) -> list[Share]:
    """A share for each holder (by number, from 0), such that `threshold` of them open either secret."""
    symbols = np.concatenate([shamir.symbols_of(seed), shamir.symbols_of(private)])
    rows = shamir.split(symbols, holders + 1, threshold, source)  # the point 0 is the secret's own
    of_seed, of_key = shamir.pack(rows[:, :SEED_SYMBOLS]), shamir.pack(rows[:, SEED_SYMBOLS:])
    return [Share(*halves) for halves in zip(of_seed, of_key, strict=True)]


def open_secret(holders: np.ndarray, halves: list[bytes], *, symbols: int) -> bytes | None:
    """The secret from as many halves as its threshold; None where they make none."""
    rows = shamir.unpack(halves, symbols)
    return None if rows is None else shamir.secret_of(shamir.combine(holders + 1, rows))
