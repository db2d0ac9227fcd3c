"""`RunNoise`: a run's correlated noise, round by round, from its key."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from hanse.core.errors import PrivacyError
from hanse.pipeline.correlated import Factorisation
from hanse.rounds.privacy.noise_key import NoiseKey


class RunNoise:
    """The noise of each round: a function of the key, the round, and how many elements there are.

    Nothing of it is kept on disk. A run that goes on in another process goes through the rounds before once more,
    which takes about as long as drawing their noise did (some 50 ns an element and round).

    Args:
      factorisation: How the rounds' noise hangs together.
      key: Where it comes from.
    """

    def __init__(self, factorisation: Factorisation, key: NoiseKey) -> None:
        self.factorisation = factorisation
        self._key = key
        self._size = 0
        self._round = 0
        self._state: Any = None
        self._first = 0
        self._noise = np.zeros(0)

    def of_rounds(self, first: int, last: int, size: int) -> np.ndarray:
        """The noise of the sum of some rounds, for fresh noise of variance 1: `float64[size]`.

        What is released in round `last` has the noise of all rounds since the one that was released before it, so that
        later rounds take back what was there, also where a round in between was abandoned.

        Args:
          first: From 1.
          last: ≥ first.
          size: Elements; the same for all rounds of a run.

        Raises:
          PrivacyError: There is no such round in the factorisation, or the rounds are none: no noise is never given.
        """
        if not 1 <= first <= last:
            raise PrivacyError(f"noise of rounds {first} to {last} was asked for; the newest has been released already")
        if (size, first, last) == (self._size, self._first, self._round):
            return self._noise
        if size != self._size or first <= self._round or self._state is None:
            self._size, self._round, self._state = size, 0, self.factorisation.init()
        self._first, self._noise = first, np.zeros(size)
        while self._round < last:
            draw = partial(self._key.source(self._round + 1).normals, size)
            noise, self._state = self.factorisation.step(self._state, draw)
            self._round += 1
            if self._round >= first:
                self._noise = self._noise + noise
        return self._noise
