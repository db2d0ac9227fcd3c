"""A least-recently-used cache with a bound in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class ByteCache(Generic[V]):
    """Keeps what was made last, up to a number of bytes.

    Args:
      capacity: Bytes, ≥ 0. A value larger than this is made anew each time.
      size: Bytes of a value.
    """

    def __init__(self, capacity: int, size: Callable[[V], int]) -> None:
        self._capacity = capacity
        self._size = size
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._used = 0

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value under `key`, made now if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        size = self._size(value)
        if size <= self._capacity:
            self._values[key] = value
            self._used += size
            while self._used > self._capacity:
                self._used -= self._size(self._values.popitem(last=False)[1])
        return value

    def forget(self, key: Hashable) -> None:
        """Drop the value under `key`, if there is one."""
        if key in self._values:
            self._used -= self._size(self._values.pop(key))

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used
