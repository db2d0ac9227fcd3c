"""`ClientNoise`: where the randomness that protects a client comes from, at the client itself.

In a simulation it follows from the job's seed and protects nobody. Everywhere else nobody but the client may know it.
At a site it follows from a secret key and from all that the noise is added to: who is asked the same again after a
crash says the same again, bit by bit, and noise never meets two different values, whose difference it would give away.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hanse.core.errors import PrivacyError
from hanse.core.randomness import derive_seed

Content = Callable[[], bytes]
"""Gives a digest of what noise is added to, for whoever wants to know."""


def _unsaid() -> bytes:
    return b""


class ClientNoise(Protocol):
    """Keys of generators, one for each use."""

    def key(self, purpose: str, round_number: int, client: str, place: int = 0, *, content: Content = _unsaid) -> int:
        """128 bits, for one generator that is used once.

        Args:
          purpose: What is drawn.
          round_number: From 1.
          client: Whose report it protects.
          place: Tells several uses apart, for example a stage's position.
          content: What the noise is added to, where that is known already.

        Raises:
          PrivacyError: There is to be no noise, and so no report.
        """
        ...


@dataclass(frozen=True)
class SimulatedNoise:
    """Keys that follow from the job's seed, so that a simulation can be repeated.

    Args:
      seed: The job's.
    """

    seed: int

    def key(self, purpose: str, round_number: int, client: str, place: int = 0, *, content: Content = _unsaid) -> int:
        """As `ClientNoise.key`."""
        return derive_seed(self.seed, purpose, round_number, client, place, bits=128)


@dataclass(frozen=True)
class SystemNoise:
    """Keys of the operating system, which nobody can repeat."""

    def key(self, purpose: str, round_number: int, client: str, place: int = 0, *, content: Content = _unsaid) -> int:
        """As `ClientNoise.key`; another one each time."""
        return secrets.randbits(128)


SYSTEM_NOISE = SystemNoise()


class KeyedNoise:
    """Keys that are a function of a secret key and of everything that the noise depends on.

    HMAC-SHA256 under the secret key, of: what was asked of the client, purpose, round, client, place and content.

    Args:
      secret: The secret key, 32 bytes, of one run.
      reported: Told of each report before its noise is drawn: round, client, and a name for the report that gives
        nothing away, the same for the same report. Raises where there is to be none.
    """

    def __init__(self, secret: bytes, *, reported: Callable[[int, str, str], None] = lambda *_: None) -> None:
        self._secret = secret
        self._reported = reported
        self._asked: Mapping[str, str] = {}

    def asked(self, questions: Mapping[str, str]) -> None:
        """What each client was asked, as digests; noise is drawn for these clients alone until this is called again."""
        self._asked = dict(questions)

    def key(self, purpose: str, round_number: int, client: str, place: int = 0, *, content: Content = _unsaid) -> int:
        """As `ClientNoise.key`.

        Raises:
          PrivacyError: Nobody asked the client, or its report may not be made.
        """
        question = self._asked.get(client)
        if question is None:
            raise PrivacyError(f"round {round_number}: noise was wanted for `{client}`, which was asked nothing")
        digest = content().hex()
        if digest:
            self._reported(round_number, client, self._code("report", question, client, digest).hex())
        drawn = self._code("noise", question, purpose, round_number, client, place, digest)
        return int.from_bytes(drawn[:16], "big")

    def _code(self, *parts: str | int) -> bytes:
        return hmac.digest(self._secret, json.dumps(parts).encode(), "sha256")


def generator(key: int) -> np.random.Generator:
    """Philox under such a key.

    Philox is no cipher: who sees very many of its numbers, to the last bit, might find the key. Noise is only ever seen
    added to something unknown, and each key serves one client in one round.
    """
    return np.random.Generator(np.random.Philox(key=key))
