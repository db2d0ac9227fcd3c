"""`ExampleGuard`: a client's own look at what it is asked to do, where a job promises privacy to its examples.

Nobody else adds noise to what leaves a client, so it need not believe anybody how much there is to be: the job, its own
numbers of examples, and its own accountant say so.
"""

from __future__ import annotations

from dataclasses import replace

from hanse.core.local_work import LocalWork
from hanse.core.protocols import Task
from hanse.pipeline.dp_sgd import DPSGD
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.accountant import account
from hanse.privacy.events import Repeated
from hanse.rounds.privacy.examples import Prescribed, check_examples
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.steps import ClientSteps, client_steps
from hanse.rounds.settings import RoundSettings


class ExampleGuard:
    """Refuses local work that would tell more of an example than the job promises.

    Each client is taken to be asked in every round, whatever the cohort: a coordinator says who is.

    Args:
      privacy: As the job says; its unit is the example.
      settings: The job's.
      prescribed: What the job's strategy has clients do in a round.

    Raises:
      PrivacyError: The job's promise does not fit the mechanism.
    """

    def __init__(self, privacy: PrivacySettings, settings: RoundSettings, prescribed: Prescribed) -> None:
        assert isinstance(privacy.mechanism, DPSGD)  # `check` has looked
        self._mechanism = privacy.mechanism
        self._budget = privacy.budget
        self._rounds = settings.rounds
        self._prescribed = prescribed
        self._costs: dict[tuple[ClientSteps, float], float] = {}

    @staticmethod
    def check(
        privacy: PrivacySettings, pipeline: Pipeline, settings: RoundSettings, prescribed: Prescribed, task: Task
    ) -> ExampleGuard:
        """The guard of a job whose parts tell nothing of examples but through noisy steps.

        Raises:
          PrivacyError: They would, or they do not go together.
        """
        check_examples(privacy, pipeline, settings, prescribed, task)
        return ExampleGuard(privacy, settings, prescribed)

    def refusals(self, number: int, work: LocalWork, num_examples: int) -> list[str]:
        """Why a client does not do this; empty where it does.

        Args:
          number: The round.
          work: What it is asked to do.
          num_examples: Its training examples.
        """
        if not 1 <= number <= self._rounds:
            return [f"the job promises privacy for {self._rounds:,} rounds, and this is round {number:,}"]
        given = work.example_privacy
        if given is None:
            return ["the job promises privacy to single examples, and this work would hide none of them"]
        if replace(work, example_privacy=None) != self._prescribed(number):
            return [f"local work in round {number:,} is not what the job's strategy has clients do"]
        if given.clip_norm != self._mechanism.clip_norm:
            return [f"the job clips gradients to {self._mechanism.clip_norm:g}, and this work to {given.clip_norm:g}"]
        return self._too_little(given.noise_multiplier, client_steps(work, num_examples)) if num_examples else []

    def _too_little(self, noise: float, steps: ClientSteps) -> list[str]:
        wanted = self._mechanism.noise_multiplier
        if wanted is not None and noise < wanted:
            return [f"the job's noise multiplier is {wanted:g}, and this work's {noise:g}"]
        if self._budget is None:
            return [] if wanted is not None else ["the job says neither a noise multiplier nor a budget"]
        known = (steps, noise)
        if known not in self._costs:
            whole = Repeated(event=steps.event(noise), count=self._rounds)
            self._costs[known] = account(whole, delta=self._budget.delta).epsilon
        cost = self._costs[known]
        if cost <= self._budget.epsilon:
            return []
        return [
            f"a noise multiplier of {noise:.4g} costs an example of this client ε = {cost:.4g} over {self._rounds:,} "
            f"rounds, and the job's budget is {self._budget}"
        ]
