"""The weighted mean of updates, accumulated in a stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hanse.aggregators.layouts import check_layout, check_vector
from hanse.core.aggregate import Aggregate
from hanse.core.errors import TooFewClientsError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec

_BLOCK = 1 << 16  # elements; measured: a block stays in the second-level cache, and calls are few


@dataclass(slots=True)
class RunningSum:
    """A weighted sum of updates so far; the vectors are in float64.

    Args:
      spec: Layout of the deltas.
      delta: `Σ a_k Δ_k`, of shape `[P]`.
      weight: `Σ a_k`.
      extras: The same sum for each further vector, with its layout.
    """

    spec: ParamSpec
    delta: np.ndarray
    weight: float = 0.0
    num_clients: int = 0
    num_examples: int = 0
    extras: dict[str, tuple[ParamSpec, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """`Σ a_k Δ_k / Σ a_k`, in float64, rounded once to the deltas' type.

    Memory is one vector, whatever the number of updates. The sum is taken in the order of the calls, so
    the caller decides its bits.
    """

    @property
    def needs_all(self) -> bool:
        """False: it streams."""
        return False

    def zero(self, spec: ParamSpec) -> RunningSum:
        """The sum of nothing."""
        return RunningSum(spec, np.zeros(spec.size, dtype=np.float64))

    def accumulate(self, accumulator: RunningSum, update: Update, weight: float) -> RunningSum:
        """Add `weight` times the update, in place.

        Raises:
          SpecMismatchError: The update has another layout, or lacks a vector that others brought.
        """
        others = {name: spec for name, (spec, _) in accumulator.extras.items()} if accumulator.num_clients else None
        check_layout(update, accumulator.spec, others)  # before anything is added: a refused update leaves no trace
        add_scaled(accumulator.delta, update.delta.numpy(), weight)
        for name, extra in update.extras.items():
            if name not in accumulator.extras:
                accumulator.extras[name] = (extra.spec, np.zeros(extra.spec.size, dtype=np.float64))
            add_scaled(accumulator.extras[name][1], extra.numpy(), weight)
        accumulator.weight += weight
        accumulator.num_clients += 1
        accumulator.num_examples += update.num_examples
        return accumulator

    def merge(self, left: RunningSum, right: RunningSum) -> RunningSum:
        """Two sums as one, in place in `left`.

        Raises:
          SpecMismatchError: The two sums are of different tensors.
        """
        if not left.num_clients or not right.num_clients:
            return left if left.num_clients else right
        for name in ("delta", *sorted(set(left.extras) | set(right.extras))):
            check_vector("a merge of two sums", name, _layouts(left).get(name), _layouts(right).get(name))
        left.delta += right.delta
        for name, (_, vector) in right.extras.items():
            left.extras[name][1].__iadd__(vector)
        left.weight += right.weight
        left.num_clients += right.num_clients
        left.num_examples += right.num_examples
        return left

    def finish(self, accumulator: RunningSum) -> Aggregate:
        """The mean.

        Raises:
          TooFewClientsError: Nothing was accumulated, or all weights are zero.
        """
        if not accumulator.num_clients or not accumulator.weight > 0:
            raise TooFewClientsError("no update with a positive weight was accumulated, so there is no mean")

        def mean(spec: ParamSpec, total: np.ndarray) -> Params:
            return Params(spec, (total / accumulator.weight).astype(spec.dtype))

        return Aggregate(
            delta=mean(accumulator.spec, accumulator.delta),
            num_clients=accumulator.num_clients,
            num_examples=accumulator.num_examples,
            extras={name: mean(spec, total) for name, (spec, total) in accumulator.extras.items()},
        )


def _layouts(total: RunningSum) -> dict[str, ParamSpec]:
    return {"delta": total.spec, **{name: spec for name, (spec, _) in total.extras.items()}}


def mean_of(updates: Iterable[Update], weights: Iterable[float]) -> Aggregate:
    """The weighted mean of updates that are all at hand.

    Raises:
      TooFewClientsError: There is no update.
    """
    rule, total = Mean(), None
    for update, weight in zip(updates, weights, strict=True):
        total = rule.accumulate(total if total is not None else rule.zero(update.delta.spec), update, weight)
    if total is None:
        raise TooFewClientsError("there is no update to average")
    return rule.finish(total)


def add_scaled(total: np.ndarray, vector: np.ndarray, scale: float) -> None:
    """`total += scale * vector` in place, block by block, without a temporary of the vector's size.

    Args:
      total: `[P]` of float64.
      vector: `[P]` of any floating type.
      scale: Dimensionless.
    """
    scratch = np.empty(min(_BLOCK, len(total)), dtype=total.dtype)
    for start in range(0, len(total), _BLOCK):
        stop = min(start + _BLOCK, len(total))
        product = scratch[: stop - start]
        product[...] = vector[start:stop]  # widened first: a product of mixed types is slower
        if scale != 1.0:
            product *= scale
        total[start:stop] += product
