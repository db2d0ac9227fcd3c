"""A client's local steps as an accountant sees them: how likely an example is in a batch, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.local_work import LocalWork
from hanse.privacy.events import Event, Gaussian, PoissonSampled, Repeated

_MOST = 6  # kinds of clients that are accounted for one by one; each takes some tenths of a second a figure


@dataclass(frozen=True, kw_only=True)
class ClientSteps:
    """The steps of one round at a client, or at the worst placed of several.

    Args:
      num_examples: n, of the client; the fewest of several.
      rate: q, the probability that an example is in a batch, in (0, 1].
      steps: T, ≥ 1.
    """

    num_examples: int
    rate: float
    steps: int

    def event(self, noise_multiplier: float) -> Event:
        """What one round costs: T releases with Gaussian noise, each of a Poisson sample."""
        release = Gaussian(noise_multiplier=noise_multiplier)
        step: Event = release if self.rate == 1 else PoissonSampled(rate=self.rate, event=release)
        return Repeated(event=step, count=self.steps)

    @property
    def weight(self) -> float:
        """q² T, to which a round's cost is about proportional, squared, where it is small."""
        return self.rate**2 * self.steps


def client_steps(work: LocalWork, num_examples: int) -> ClientSteps:
    """The steps of a client with so many examples.

    >>> client_steps(LocalWork(batch_size=10, epochs=2), 40)
    ClientSteps(num_examples=40, rate=0.25, steps=8)
    """
    return ClientSteps(
        num_examples=num_examples,
        rate=work.batch_length(num_examples) / num_examples,
        steps=work.num_steps(num_examples),
    )


def frontier(sizes: np.ndarray, work: LocalWork, *, most: int = _MOST) -> tuple[ClientSteps, ...]:
    """The steps that no other client's exceed in rate and in number, by rising numbers of examples.

    The more examples, the smaller the rate, and the more steps. A client with n examples costs at most what the last of
    these with no more than n does. Where there are more than `most`, those that lie closest are put together: the
    higher rate, and the larger number of steps.

    Args:
      sizes: Training examples of each client, ≥ 1: `[num_clients]`.
      work: Local work of a round.
      most: How many at most, ≥ 1.

    >>> [(found.rate, found.steps) for found in frontier(np.array([5, 20, 40, 80]), LocalWork(batch_size=20))]
    [(1.0, 1), (0.5, 2), (0.25, 4)]
    """
    found: list[ClientSteps] = []
    for size in np.unique(np.asarray(sizes)):
        steps = client_steps(work, int(size))
        if not found or steps.steps > found[-1].steps:
            found.append(steps)
    while len(found) > most:
        place = min(range(len(found) - 1), key=lambda i: _overcharge(found[i], found[i + 1]))
        low, high = found[place], found[place + 1]
        found[place : place + 2] = [
            ClientSteps(num_examples=low.num_examples, rate=low.rate, steps=max(low.steps, high.steps))
        ]
    return tuple(found)


def _overcharge(low: ClientSteps, high: ClientSteps) -> float:
    """How much more the two put together weigh than the heavier of them."""
    return low.rate**2 * high.steps / max(low.weight, high.weight)
