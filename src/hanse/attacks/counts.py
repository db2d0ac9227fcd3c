"""How many a share is."""

from __future__ import annotations

import math

from hanse.core.errors import SettingError


def count_of(share: float, total: int) -> int:
    """A share of so many, rounded half up, but at least 1 where it is more than nothing of something.

    >>> count_of(0.25, 10), count_of(0.01, 10), count_of(0.0, 10)
    (3, 1, 0)
    """
    if share <= 0 or not total:
        return 0
    return min(total, max(1, math.floor(share * total + 0.5 + 1e-9)))


def check_share(name: str, share: float) -> None:
    """Whether it is one; raises `SettingError`."""
    if not 0 <= share <= 1:
        raise SettingError(name, f"must be in [0, 1], got {share}")
