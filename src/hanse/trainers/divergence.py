"""Training that diverged is an error of the client it happened to."""

from __future__ import annotations

from collections.abc import Mapping

from hanse.core.errors import NonFiniteUpdateError
from hanse.core.params import Params


def refuse_non_finite(client: str, round_number: int, vectors: Mapping[str, Params]) -> None:
    """Refuse vectors with NaN or an infinity, before any of them is sent or kept for the next round.

    Raises:
      NonFiniteUpdateError: Says whose, and which vector.
    """
    for name, params in vectors.items():
        if not params.is_finite():
            raise NonFiniteUpdateError(
                f"round {round_number}: client `{client}`: training diverged: its {name} holds NaN or an infinity",
                hint="nothing was sent or kept; a smaller learning rate, or max_grad_norm, usually helps",
            )
