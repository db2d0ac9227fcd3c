"""Sums over all clients' inputs, for preprocessing that is fitted to the whole federation."""

from __future__ import annotations

import numpy as np

from hanse.core.errors import NonFiniteUpdateError, SpecMismatchError
from hanse.core.messages import LocalStatistics, Statistics


def add_statistics(total: Statistics, reply: LocalStatistics) -> dict[str, np.ndarray]:
    """The sums with one more client's; a new dict.

    Raises:
      SpecMismatchError: The client's arrays have other names or shapes than those before.
      NonFiniteUpdateError: They hold NaN or an infinity.
    """
    layout = {name: value.shape for name, value in reply.sums.items()}
    wanted = {name: value.shape for name, value in total.items()}
    if total and layout != wanted:
        raise SpecMismatchError(f"client `{reply.client}` brought statistics {layout}; others brought {wanted}")
    for name, value in reply.sums.items():
        if not np.isfinite(value).all():
            raise NonFiniteUpdateError(f"client `{reply.client}`: its statistic `{name}` holds NaN or an infinity")
    return {name: total[name] + value if total else value for name, value in reply.sums.items()}
