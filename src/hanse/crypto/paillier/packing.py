"""Many numbers in one plaintext, each in a slot with room for the sums that are to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hanse.core.errors import EncodingError, SettingError
from hanse.crypto.paillier.keys import PublicKey

MOST_SLOTS = 4096


@dataclass(frozen=True, kw_only=True)
class Slots:
    """How a plaintext is laid out: number j of `count` stands at bit `j · bits`.

        m = Σ_j v_j 2^(j · bits)        |v_j| < 2^(bits - 1)

    Numbers keep their sign: a negative one borrows from the slot above, and reading from the lowest slot up gives it
    back. Sums of such plaintexts are laid out alike as long as every slot's sum keeps within its bound.

    Args:
      count: Slots, 1 to 4096.
      bits: Bits of a slot, at least 2.
    """

    count: int
    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_SLOTS:
            raise SettingError("slots", f"must be 1 to {MOST_SLOTS}, got {self.count}")
        if self.bits < 2:
            raise SettingError("slot_bits", f"must be 2 or more, got {self.bits}")

    @property
    def bound(self) -> int:
        """Largest magnitude that a slot can hold."""
        return (1 << (self.bits - 1)) - 1

    def require_room(self, key: PublicKey) -> None:
        """Raises `EncodingError` unless a plaintext of this key has room for all slots."""
        if self.count * self.bits > room(key):
            raise EncodingError(
                f"{self.count} slots of {self.bits} bits do not fit in a key of {key.bits} bits, which has room for "
                f"{room(key)}"
            )

    def packed(self, numbers: Sequence[int]) -> int:
        """One plaintext, which may be negative."""
        total = 0
        for number in reversed(numbers):
            total = (total << self.bits) + int(number)
        return total

    def unpacked(self, plaintext: Any) -> list[int]:
        """The slots' numbers; raises `EncodingError` if something is left above the last slot."""
        rest, half, mask = int(plaintext), 1 << (self.bits - 1), (1 << self.bits) - 1
        found = []
        for _ in range(self.count):
            number = ((rest + half) & mask) - half
            found.append(number)
            rest = (rest - number) >> self.bits
        if rest:
            raise EncodingError("a decrypted number is larger than its slots: wrong key, or not what was encrypted")
        return found


def room(key: PublicKey) -> int:
    """Bits of a plaintext that slots may take: sums keep below n / 2, so that signs are told apart."""
    return key.bits - 2


def single(key: PublicKey) -> Slots:
    """One number a plaintext, with all the room that there is."""
    return Slots(count=1, bits=room(key))


def slots_for(key: PublicKey, bound: int, *, additions: int) -> Slots:
    """As many slots as fit, each with room for the sum of `additions` numbers of at most `bound`.

    Args:
      key: The public key.
      bound: Largest magnitude of a number before it is added to others, >= 1: `FixedPoint.bound`.
      additions: How many are added up, >= 1; guard bits are log2 of it.

    Raises:
      SettingError: Not even one fits.
    """
    if bound < 1 or additions < 1:
        raise SettingError("additions", f"bound and additions must be 1 or more, got {bound} and {additions}")
    bits = (bound * additions).bit_length() + 1
    if bits > room(key):
        raise SettingError("additions", f"a sum of {bits} bits does not fit in a key of {key.bits} bits")
    return Slots(count=min(room(key) // bits, MOST_SLOTS), bits=bits)
