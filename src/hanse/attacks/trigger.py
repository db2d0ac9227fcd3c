"""`Trigger`: the pattern that a backdoor answers to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hanse.core.errors import DataError, SettingError

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A square of pixels in a corner of images, in all channels, or given features of any input, set to one value.

    Args:
      size: Pixels of the square's side, ≥ 1.
      value: What they are set to, finite; in the unit of the data, before inputs are prepared.
      corner: ``"top_left"``, ``"top_right"``, ``"bottom_left"`` or ``"bottom_right"``.
      features: Positions in an input, from 0 and counted as if it were flat; they take the place of the square.
    """

    size: int = 3
    value: float = 1.0
    corner: Corner = "bottom_right"
    features: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SettingError("size", f"must be at least 1, got {self.size}")
        if not math.isfinite(self.value):
            raise SettingError("value", f"must be finite, got {self.value}")
        if self.corner not in get_args(Corner):
            raise SettingError("corner", f"must be one of {', '.join(get_args(Corner))}, got {self.corner!r}")
        if any(feature < 0 for feature in self.features):
            raise SettingError("features", f"must be at least 0, got {min(self.features)}")
        if len(set(self.features)) < len(self.features):
            raise SettingError("features", f"must differ from each other, got {list(self.features)}")

    def num_parts(self) -> int:
        """Pixels or features of it, which is how many pieces there may be."""
        return len(self.features) or self.size**2

    def whole(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where it is set in an input of that shape: a mask of it.

        Args:
          shape: `[C, H, W]` or `[H, W]` for images, of which the square's pixels are set in each channel; with
            `features`, any.

        Raises:
          DataError: It does not fit.

        >>> Trigger(size=1).whole((2, 2)).astype(int).tolist()
        [[0, 0], [0, 1]]
        """
        return self._mask(self._positions(shape), shape)

    def piece(self, shape: tuple[int, ...], index: int, pieces: int) -> np.ndarray:
        """Where one of its pieces is set: a mask of an input, as `whole`.

        Pieces are runs of its pixels, row by row, or of its features in their order, as long as each other give or take
        one. No two overlap, and together they are the whole.

        Args:
          shape: As for `whole`.
          index: Which piece, from 0.
          pieces: How many there are; of more than `num_parts`, some are empty.

        >>> Trigger(size=2, corner="top_left").piece((2, 3), 1, 2).astype(int).tolist()
        [[0, 0, 0], [1, 1, 0]]
        """
        return self._mask(np.array_split(self._positions(shape), pieces)[index], shape)

    def put(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """A copy of inputs `[n, …]` with the value wherever the mask of one input says.

        Raises:
          DataError: Inputs are whole numbers, and the value is not among those of their type.
        """
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            if self.value != int(self.value) or not limits.min <= self.value <= limits.max:
                raise DataError(f"a trigger of value {self.value} can't be put into inputs of type {x.dtype}")
        found = x.copy()
        found[:, mask] = self.value
        return found

    def _positions(self, shape: tuple[int, ...]) -> np.ndarray:
        """Flat positions of its parts, in an input or, for a square, in one channel."""
        if self.features:
            if max(self.features) >= math.prod(shape):
                raise DataError(f"the trigger sets feature {max(self.features)}, and inputs have {math.prod(shape)}")
            return np.array(self.features)
        if len(shape) not in (2, 3):
            raise DataError(
                f"the trigger is a square of pixels, and inputs have shape {list(shape)}",
                hint="say which features it sets: features = [0, 1]",
            )
        height, width = shape[-2:]
        if self.size > min(height, width):
            raise DataError(f"the trigger is {self.size} pixels wide and high, and images are {height} by {width}")
        top = 0 if self.corner.startswith("top") else height - self.size
        left = 0 if self.corner.endswith("left") else width - self.size
        rows, columns = np.arange(top, top + self.size), np.arange(left, left + self.size)
        return np.asarray(rows[:, None] * width + columns).ravel()

    def _mask(self, positions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        within = shape if self.features else shape[-2:]
        mask = np.zeros(math.prod(within), dtype=bool)
        mask[positions] = True
        return np.broadcast_to(mask.reshape(within), shape)
