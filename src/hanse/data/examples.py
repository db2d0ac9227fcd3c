"""`Examples`: inputs and targets of the same length, as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import DataError


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs `x` of shape `[n, ...]` and targets `y` of shape `[n]` or `[n, ...]`.

    Raises:
      DataError: The two differ in length.

    >>> len(Examples(np.zeros((3, 2)), np.zeros(3)))
    3
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise DataError(f"{len(self.x)} inputs came with {len(self.y)} targets; each input needs one")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray | slice) -> Examples:
        """The named rows: a copy for an index array, a view for a slice."""
        return Examples(self.x[rows], self.y[rows])

    @staticmethod
    def concatenate(parts: list[Examples]) -> Examples:
        """All rows of all parts, in order.

        Raises:
          DataError: There is no part.
        """
        if not parts:
            raise DataError("no examples to put together")
        if len(parts) == 1:
            return parts[0]
        return Examples(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
