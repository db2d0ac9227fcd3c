"""Strict reading of bytes from outside: lengths are checked before anything is believed."""

from __future__ import annotations

from hanse.core.errors import EncodingError


def prefixed(content: bytes) -> bytes:
    """The bytes behind their length, 4 bytes big-endian."""
    return len(content).to_bytes(4, "big") + content


def prefixed_int(number: int) -> bytes:
    """A number of 0 or more, big-endian without leading zeros, behind its length."""
    return prefixed(int(number).to_bytes((int(number).bit_length() + 7) // 8, "big"))


class Reader:
    """Reads big-endian fields off bytes that somebody sent.

    Args:
      data: The bytes.
      what: What they should be, for messages: ``"a Paillier public key"``.

    Raises:
      EncodingError: By every method: the bytes end early, or a field is out of range.
    """

    def __init__(self, data: bytes, what: str) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise EncodingError(f"{what} must be bytes; this is a {type(data).__name__}")
        self._data = bytes(data)
        self._at = 0
        self.what = what

    def magic(self, expected: bytes) -> None:
        """The first bytes, which say what follows."""
        if self.take(len(expected)) != expected:
            raise EncodingError(f"these bytes are not {self.what}: they begin otherwise")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self._data) - self._at:
            raise EncodingError(f"{self.what} was cut short: {len(self._data)} bytes, more were announced")
        self._at += size
        return self._data[self._at - size : self._at]

    def uint(self, size: int, *, low: int = 0, high: int, name: str) -> int:
        """A number of `size` bytes in [low, high]."""
        number = int.from_bytes(self.take(size), "big")
        if not low <= number <= high:
            raise EncodingError(f"{self.what}: `{name}` is {number}; allowed are {low} to {high}")
        return number

    def prefixed(self, *, limit: int, name: str) -> bytes:
        """Bytes behind their length, at most `limit` of them."""
        return self.take(self.uint(4, high=limit, name=f"length of {name}"))

    def prefixed_int(self, *, limit: int, name: str) -> int:
        """A number behind its length, without leading zeros: each number has one form."""
        content = self.prefixed(limit=limit, name=name)
        if content[:1] == b"\0":
            raise EncodingError(f"{self.what}: `{name}` has leading zeros")
        return int.from_bytes(content, "big")

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise EncodingError(
                f"{self.what} is followed by {len(self._data) - self._at} bytes that don't belong to it"
            )
