"""`ClientNoise`: where the randomness that protects a client comes from, at the client itself.

In a simulation it follows from the job's seed and protects nobody. Everywhere else nobody but the client may know it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hanse.core.randomness import derive_seed


class ClientNoise(Protocol):
    """Keys of generators, one for each use."""

    def key(self, purpose: str, round_number: int, client: str, place: int = 0) -> int:
        """128 bits, for one generator that is used once.

        Args:
          purpose: What is drawn.
          round_number: From 1.
          client: Whose report it protects.
          place: Tells several uses apart, for example a stage's position.
        """
        ...


@dataclass(frozen=True)
class SimulatedNoise:
    """Keys that follow from the job's seed, so that a simulation can be repeated.

    Args:
      seed: The job's.
    """

    seed: int

    def key(self, purpose: str, round_number: int, client: str, place: int = 0) -> int:
        """As `ClientNoise.key`."""
        return derive_seed(self.seed, purpose, round_number, client, place, bits=128)


@dataclass(frozen=True)
class SystemNoise:
    """Keys of the operating system, which nobody can repeat."""

    def key(self, purpose: str, round_number: int, client: str, place: int = 0) -> int:
        """As `ClientNoise.key`; another one each time."""
        return secrets.randbits(128)


SYSTEM_NOISE = SystemNoise()


def generator(key: int) -> np.random.Generator:
    """Philox under such a key.

    Philox is no cipher: who sees very many of its numbers, to the last bit, might find the key. Noise is only ever seen
    added to something unknown, and each key serves one client in one round.
    """
    return np.random.Generator(np.random.Philox(key=key))
