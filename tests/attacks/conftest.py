from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hanse.attacks.attack import Seen


def seen_by(
    own: Sequence[Sequence[float] | np.ndarray],
    honest: Sequence[Sequence[float] | np.ndarray] = (),
    *,
    num_clients: int | None = None,
    rule: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None,
    dtype: type = np.float64,
    seed: int = 0,
    round_number: int = 1,
) -> Seen:
    def frozen(row: Sequence[float] | np.ndarray) -> np.ndarray:
        array = np.array(row, dtype=dtype)
        array.flags.writeable = False  # whoever changes it in place fails
        return array

    return Seen(
        round=round_number,
        members=tuple(f"m{i}" for i in range(len(own))),
        own=tuple(frozen(row) for row in own),
        honest=tuple(frozen(row) for row in honest),
        num_clients=len(own) + len(honest) if num_clients is None else num_clients,
        rng=np.random.default_rng(seed),
        rule=rule,
    )


@pytest.fixture(name="seen_by")
def fixture_seen_by() -> Callable[..., Seen]:
    return seen_by
