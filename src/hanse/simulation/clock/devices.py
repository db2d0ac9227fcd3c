"""`Devices`: how fast simulated clients compute and send, when they are there, and how often they drop out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hanse.core.adversarial import gradients_per_batch
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a simulated client's order takes, in simulated seconds.

    A client that is asked for an update answers after

        bytes down / download  +  examples · example_seconds · exp(ν z')  +  bytes up / upload

    with its own `example_seconds`, `download` and `upload`: a median times exp(σ z), z ~ N(0, 1), drawn once a client
    (download and upload share one draw); z' is drawn anew for each order. `examples` counts each example as often as
    the local work goes through it. Bytes are those of the vectors, as encoded. Measuring models takes no time: in no
    way to run rounds does training wait for it.

    What a device is depends on the seed and the client's place in the federation; what becomes of an order on the
    seed, the round and the client's name.

    Args:
      example_seconds: Median seconds that a device trains on one example, > 0.
      compute_sigma: σ of the speeds at which devices compute, ≥ 0; 0 makes all alike.
      jitter_sigma: ν, of what one device takes from order to order, ≥ 0.
      download: Median bytes a second to a device, > 0; None takes no time.
      upload: Median bytes a second from a device, > 0; None takes no time.
      bandwidth_sigma: σ of devices' bandwidths, ≥ 0.
      available: Share of each period during which a device is there, in (0, 1]; a window of its own. Who is asked
        outside of it fails at once, and who has not answered at its end fails then.
      period: Seconds between the beginnings of a device's windows, > 0: a day, mostly.
      dropout: Probability that a device drops out of an order, in [0, 1); it does at a time that is uniform over what
        download and training would have taken.
    """

    example_seconds: float = 0.01
    compute_sigma: float = 0.0
    jitter_sigma: float = 0.0
    download: float | None = None
    upload: float | None = None
    bandwidth_sigma: float = 0.0
    available: float = 1.0
    period: float = 86_400.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("example_seconds", "period", "download", "upload"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingError(name, f"must be above 0 and finite, got {value}")
        for name in ("compute_sigma", "jitter_sigma", "bandwidth_sigma"):
            value = getattr(self, name)
            if not 0 <= value <= 10:
                raise SettingError(name, f"must be from 0 to 10, got {value}")
        if not 0 < self.available <= 1:
            raise SettingError(
                "available", f"must be a share of the period, above 0 and at most 1; got {self.available}"
            )
        if not 0 <= self.dropout < 1:
            raise SettingError("dropout", f"must be a probability from 0 to below 1, got {self.dropout}")


def examples_worked(work: LocalWork, num_examples: int) -> int:
    """How many examples a client goes through, each counted as often as it is; legs included.

    Where inputs are moved against the model, each gradient that this takes of an example counts as one more.

    >>> examples_worked(LocalWork(epochs=2, batch_size=10), 25), examples_worked(LocalWork(steps=3, batch_size=10), 25)
    (50, 30)
    """
    return sum(_worked(part, num_examples) * gradients_per_batch(part.adversarial) for part in work.pieces)


def _worked(work: LocalWork, num_examples: int) -> int:
    if work.upload == "gradient":
        return num_examples
    if work.steps is None:
        return work.epochs * num_examples
    batches = work.accumulate if work.stepping is None else work.stepping.num_batches
    return work.steps * batches * work.batch_length(num_examples)
