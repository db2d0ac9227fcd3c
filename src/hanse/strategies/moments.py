"""Server moments: what FedAdam, FedYogi and FedAdagrad share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.params import Params


@dataclass(frozen=True)
class MomentState:
    """The model and two moments of the rounds' deltas.

    Args:
      params: The model.
      first: m, mean of past deltas.
      second: v, by element the mean or the sum of past deltas' squares.
      noise: What of v is the noise that privacy added, where a strategy takes it off; the same for all elements.
    """

    params: Params
    first: Params
    second: Params
    noise: float = 0.0


def first_state(params: Params, tau: float) -> MomentState:
    """Before the first round: m = 0 and v = τ², as the paper's v_{-1} ≥ τ² asks for."""
    return MomentState(params, params.zeros_like(), params.with_vector(np.full_like(params.numpy(), tau**2)))


def moved(state: MomentState, aggregate: Aggregate, first: Params, second: np.ndarray, root: np.ndarray) -> MomentState:
    """The state after a step of `root`-scaled momentum.

    Args:
      state: Before it.
      aggregate: Whose delta buffers (batch-norm statistics) take over as it is: they have no gradient.
      first: m after the round.
      second: v after the round, `[P]`.
      root: The learning rate over what m is divided by, `[P]`.
    """
    step = (first.numpy() * root).astype(first.spec.dtype, copy=False)
    trainable = first.spec.num_trainable
    step[trainable:] = aggregate.delta.numpy()[trainable:]
    return MomentState(state.params + first.with_vector(step), first, first.with_vector(second))


def check_moments(lr: float, beta1: float, tau: float) -> None:
    """Refuse settings with which no step would come out.

    Raises:
      SettingError: Naming the setting.
    """
    if not lr > 0:
        raise SettingError("lr", f"must be more than 0, got {lr}")
    if not 0 <= beta1 < 1:
        raise SettingError("beta1", f"must be in [0, 1), got {beta1}")
    if not tau > 0:
        raise SettingError("tau", f"must be more than 0, got {tau}")


def check_decay(beta2: float) -> None:
    """Refuse a decay of the second moment that is none.

    Raises:
      SettingError: It is not in [0, 1).
    """
    if not 0 <= beta2 < 1:
        raise SettingError("beta2", f"must be in [0, 1), got {beta2}")
