"""Which sums a job has, and how many must be in each, as a site works it out: from the job and the list of clients.

Nothing here is taken from an order: a coordinator that asks for a sum of few, or for one that the job does not have,
gets none.
"""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.messages import EvaluatePhase, Phase, StatisticsPhase, TrainPhase
from hanse.core.protocols import Task
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.evaluation import clients_to_evaluate
from hanse.rounds.secure_sum import cohort_size, fewest_in_one_sum, fewest_updates, is_fitted_to_all
from hanse.rounds.selection import Everyone, Poisson
from hanse.rounds.settings import RoundSettings


@dataclass(frozen=True, kw_only=True)
class AskedSums:
    """The sums of one run.

    Args:
      pipeline: Whose aggregator adds up.
      settings: The round loop's, as the job says.
      task: What is learned.
      num_clients: In the run.
      min_clients: Updates that must be in a sum, as the job says and as its promise of privacy assumes.
    """

    pipeline: Pipeline
    settings: RoundSettings
    task: Task
    num_clients: int
    min_clients: int

    def fewest_of(self, phase: TrainPhase | EvaluatePhase | StatisticsPhase) -> int:
        """How many must be in the sum of the answers to a phase."""
        if isinstance(phase, TrainPhase):
            return fewest_in_one_sum(self.pipeline, self.min_clients, max(phase.cohort, self._least_cohort))
        asked = self.num_clients if isinstance(phase, StatisticsPhase) else self._measuring
        return fewest_updates(self.pipeline, 1, asked)

    def refusals(self, phase: Phase) -> list[str]:
        """Why nobody answers a phase that the job does not have; empty where it has."""
        rounds, evaluate = self.settings.rounds, self.settings.evaluate
        if isinstance(phase, TrainPhase):
            found = (
                [] if 1 <= phase.round <= rounds else [f"the job has {rounds:,} rounds; this is round {phase.round:,}"]
            )
            if phase.cohort < self._least_cohort:
                found.append(
                    f"a cohort of {phase.cohort:,} was announced; by the job and the list of sites it has "
                    f"{self._least_cohort:,}"
                )
            return found
        if isinstance(phase, EvaluatePhase):
            due = phase.round % evaluate.every == 0 or phase.round == rounds
            asked = self.pipeline.adds_numbers and evaluate.clients != "none"
            if not asked or phase.split not in (evaluate.split, "validation"):
                return [f"the job measures nothing on clients' {phase.split} data"]
            if not 0 <= phase.round <= rounds or not due or (phase.round == 0 and not evaluate.initial):
                return [f"the job measures no model of round {phase.round:,} on clients"]
        if isinstance(phase, StatisticsPhase) and not (self.pipeline.adds_numbers and is_fitted_to_all(self.task)):
            return ["the job needs no statistics of clients' inputs"]
        return []

    @property
    def _least_cohort(self) -> int:
        """How many clients a round asks at the least; 1 where chance decides, or a selector that is not known here."""
        cohort = self.settings.cohort
        known = isinstance(cohort, Everyone) or hasattr(cohort, "size") or hasattr(cohort, "clients")
        return cohort_size(self.settings, self.num_clients) if known and not isinstance(cohort, Poisson) else 1

    @property
    def _measuring(self) -> int:
        """How many clients are asked to measure a model."""
        evaluate = self.settings.evaluate
        if evaluate.clients == "cohort":
            return self._least_cohort
        everyone = [str(i) for i in range(self.num_clients)]  # it does not matter who they are
        return len(clients_to_evaluate(evaluate, everyone, (), seed=0, held_out=True, hidden=True))
