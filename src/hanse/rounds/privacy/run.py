"""`RunPrivacy`: one run's account, charged before each release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hanse.pipeline.correlated import ReleasedRound
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.ledger import ChargeKey, PrivacyLedger
from hanse.rounds.history import RoundRecord
from hanse.rounds.privacy.noise_key import KeyFile, NoiseKey, SimulatedKey
from hanse.rounds.privacy.participation_guard import ParticipationGuard
from hanse.rounds.privacy.run_noise import RunNoise
from hanse.rounds.privacy.settled import SettledPrivacy

LEDGER = "privacy.sqlite"
"""The ledger's file in a run folder."""

NOISE_KEYS = "noise-keys"
"""The folder beside a coordinator's ledger in which live runs' noise keys are, one file each."""


def scope_of(run: str) -> str:
    """A run's scope in a ledger."""
    return f"run {run}"


class RunPrivacy:
    """One run's account.

    Args:
      settled: What each round releases, and what all may cost.
      ledger: The ledger's file.
      run: The run's name.
      simulated: Whether noise comes from the job's seed, so that a round which is done again after a crash releases the
        same once more. In a federation it would draw new noise, and is charged as another release.
    """

    def __init__(self, settled: SettledPrivacy, ledger: Path, *, run: str, simulated: bool) -> None:
        self.settled = settled
        self._run = run
        self._simulated = simulated
        self._ledger = PrivacyLedger(ledger, scope=scope_of(run), budget=settled.budget, neighbours=settled.neighbours)
        self._attempts = Counter(entry.key.round for entry in self._ledger.entries())
        self._guard = None if settled.limits is None else ParticipationGuard(settled.limits)
        seed = settled.settings.seed
        self._key: NoiseKey = SimulatedKey(seed) if simulated else KeyFile(ledger.parent / NOISE_KEYS / f"{run}.json")
        self._noise = None if settled.factorisation is None else RunNoise(settled.factorisation, self._key)
        self._released = 0  # the newest round with a release

    def went_on(self, records: Iterable[RoundRecord]) -> None:
        """Take note of the rounds that are in the journal already, in order."""
        for record in records:
            if self._guard is not None:
                self._guard.admit(record.round, record.cohort)
            if record.status == "finished":
                self._released = record.round

    def admit(self, number: int, cohort: Sequence[str]) -> None:
        """Before a round's clients are asked: hold the cohort to the limits, and charge what clients release.

        Raises:
          PrivacyBudgetError: The budget has no room for their reports; nobody may be asked.
          PrivacyError: A client would take part more often than was accounted for.
        """
        if self._guard is not None:
            self._guard.admit(number, cohort)
        if self.settled.local:
            every = 1 if self.settled.examples is None else self.settled.examples.every
            self._charge(number - (number - 1) % every)

    def in_round(self, pipeline: Pipeline, number: int) -> Pipeline:
        """The pipeline with a round's noise, where that depends on other rounds' noise."""
        if self._noise is None:
            return pipeline
        noise = partial(self._noise.of_rounds, self._released + 1, number)
        return replace(pipeline, mechanism=ReleasedRound(noise_multiplier=self.settled.noise_multiplier, noise=noise))

    def ended(self) -> None:
        """Destroy what noise could be taken off with; the run will release nothing more."""
        self._key.forget()

    def charge(self, number: int) -> None:
        """Write what the server releases in a round into the ledger; it may happen once this has returned.

        Raises:
          PrivacyBudgetError: The budget has no room for it; nothing may be released.
          PrivacyError, StorageError: The key of the run's noise can't be had; nothing may be released.
        """
        if self.settled.local:
            return
        if self._noise is None:
            self._charge(number)
            return
        # the key first: a charge without a key could not be told from a key that was lost
        self._key.prepare(number, begun=bool(self._attempts))
        self._ledger.charge(ChargeKey(run=self._run, round=0), self.settled.event)
        self._attempts[0] = 1
        self._released = number

    def _charge(self, number: int) -> None:
        attempt = 0 if self._simulated else self._attempts[number]
        key, planned = ChargeKey(run=self._run, round=number, attempt=attempt), 1 + self.settled.rounds - number
        self._ledger.charge(key, self.settled.event, planned=planned)
        self._attempts[number] += 1
