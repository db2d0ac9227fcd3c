"""Rules that look at each element by itself: the median and the trimmed mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, RuleRound
from hanse.core.errors import SettingError
from hanse.core.processors import usable_cores


@dataclass(frozen=True, kw_only=True)
class Median:
    """The median of each element; of an even number of rows, the mean of the two in the middle.

    It holds as long as more than half of the rows are honest: each element then lies between two honest ones.

    References:
      Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning: towards optimal statistical rates",
      ICML, definition 1.
    """

    def fewest(self, attackers: int) -> int:
        """2f + 1."""
        return 2 * attackers + 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        return Combined(vector=over_sorted(rows, _middle))


@dataclass(frozen=True, kw_only=True)
class TrimmedMean:
    """The mean of each element's values without the b smallest and the b largest.

    With x_(1) ≤ … ≤ x_(n) the values of one element, each element by itself:

        (x_(b+1) + … + x_(n−b)) / (n − 2b)

    b = 0 is the plain mean; the largest b is the median. Where b ≥ f and n > 2b, whatever is left of the attackers'
    values lies between two honest ones.

    Args:
      trim: b: a number of rows ≥ 0, or a share of them in [0, 0.5), rounded down; None for f, the number of attackers.

    Raises:
      SettingError: `trim` is out of range.

    References:
      Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning: towards optimal statistical rates",
      ICML, definition 2. Deviation: there b is a share β of the rows; here also a number, f unless told otherwise.
    """

    trim: int | float | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.trim, int)
        if self.trim is not None and not (self.trim >= 0 and (whole or self.trim < 0.5)):
            raise SettingError("trim", f"must be a whole number ≥ 0, or a share in [0, 0.5), got {self.trim}")

    def fewest(self, attackers: int) -> int | None:
        """2b + 1 and more than 2f, and so many that b ≥ f; None where no number of rows makes b so large.

        >>> TrimmedMean().fewest(2), TrimmedMean(trim=3).fewest(2), TrimmedMean(trim=0.1).fewest(2)
        (5, 7, 20)
        >>> TrimmedMean(trim=1).fewest(2) is None
        True
        """
        if self.trim is None:
            return 2 * attackers + 1
        if isinstance(self.trim, int):
            return 2 * self.trim + 1 if self.trim >= attackers else None
        if not attackers:
            return 1
        return max(2 * attackers + 1, math.ceil((attackers - _SLACK) / self.trim)) if self.trim > 0 else None

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        """As `Rule.combine`."""
        trim = self._trimmed(len(rows), given.attackers)
        return Combined(vector=over_sorted(rows, lambda block: _mean_of_kept(block, trim)))

    def _trimmed(self, rows: int, attackers: int) -> int:
        if self.trim is None:
            return attackers
        return self.trim if isinstance(self.trim, int) else math.floor(self.trim * rows + _SLACK)


def over_sorted(rows: Rows, summary: Callable[[np.ndarray], np.ndarray], *, threads: int | None = None) -> np.ndarray:
    """A number for each element from its values in ascending order, `[P]` in float64.

    Its bits depend neither on the rows' order nor on the number of threads; a zero is +0. Memory beyond the rows and
    the outcome is a block of columns for each thread.

    Args:
      rows: All finite.
      summary: Of a block `[w, m]`, w elements' values, into `[w]`; called by several threads, and may change the block.
      threads: At most; None for one for each core.
    """
    height, dtype = (
        len(rows),
        np.promote_types(rows.dtype, np.float32),
    )  # exact; float16 takes four times as long to sort
    lines = math.ceil(height * dtype.itemsize / _LINE) | 1  # an odd stride: one of 2^k has few places in a cache
    width = max(_FEWEST_COLUMNS, _BLOCK_BYTES // (lines * _LINE))
    starts, lock = iter(range(0, rows.dimension, width)), Lock()
    found = np.empty(rows.dimension)

    def work() -> None:
        scratch = np.empty((min(width, rows.dimension), lines * _LINE // dtype.itemsize), dtype=dtype)
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            columns = slice(start, min(start + width, rows.dimension))
            block = scratch[: columns.stop - start, :height]
            rows.block(columns, out=block.T)
            block.sort(axis=-1)
            found[columns] = summary(block)
            found[columns] += 0.0  # −0 becomes +0: which of equal zeros comes first, no order says

    num_threads = min(threads or usable_cores(), math.ceil(rows.dimension / width))
    if num_threads <= 1:
        work()
        return found
    with ThreadPoolExecutor(num_threads, thread_name_prefix="hanse-columns") as pool:
        for done in [pool.submit(work) for _ in range(num_threads)]:
            done.result()
    return found


_BLOCK_BYTES = 1 << 20  # of values to be sorted; measured: from a quarter of it to eight times as much, all do alike
_FEWEST_COLUMNS = 1024  # measured: with a quarter as many, calls begin to tell
_LINE = 64  # bytes that a cache keeps together
_SLACK = 1e-9  # of a share times a number: 0.07 · 100 is a little more than 7, and 0.29 · 100 a little less than 29


def _middle(block: np.ndarray) -> np.ndarray:
    num = block.shape[-1]
    return np.asarray(np.add(block[:, (num - 1) // 2], block[:, num // 2], dtype=np.float64) / 2)


def _mean_of_kept(block: np.ndarray, trim: int) -> np.ndarray:
    num = block.shape[-1] - 2 * trim
    # widened first: each element's sum is then of the same order wherever it stands in a block
    return np.asarray(block[:, trim : trim + num].astype(np.float64).sum(axis=-1) / num)
