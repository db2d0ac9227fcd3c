"""Privacy of single examples: each client's own steps are DP-SGD, with as much noise as the worst placed client needs.

An example is with one client, so nothing that other clients tell depends on it but through the models, which are noisy
already. What a run costs is hence what it costs the client that it costs most; all get the same noise multiplier.

Neighbours are two federations in which one example counts in one and is left out of every batch in the other. How many
examples a client holds is the same in both: sampling rates and numbers of steps follow from it, and it is public.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hanse.core.errors import PrivacyError
from hanse.core.local_work import LocalWork
from hanse.core.protocols import Task
from hanse.pipeline.dp_sgd import DPSGD
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.accountant import account, costliest
from hanse.privacy.events import Disjoint, Event, Repeated
from hanse.rounds.privacy.budgeting import calibrated, check_budget
from hanse.rounds.privacy.local import randomising_stage
from hanse.rounds.privacy.releases import check_releases, quiet
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settled import ExampleClaim, SettledPrivacy
from hanse.rounds.privacy.steps import ClientSteps, client_steps, frontier
from hanse.rounds.selection import Fixed, LimitsParticipation, Population
from hanse.rounds.settings import RoundSettings

Prescribed = Callable[[int], LocalWork]
"""What a strategy has clients do in a round."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Who takes how many steps, how often.

    Args:
      steps: Of the clients that nobody is placed worse than, in every respect, by rising numbers of examples.
      every: Rounds in which a client takes part once at most.
      rounds: Of the run.
    """

    steps: tuple[ClientSteps, ...]
    every: int
    rounds: int

    @property
    def times(self) -> int:
        """Rounds in which one client may take part."""
        return -(-self.rounds // self.every)

    def of_one(self, steps: ClientSteps, noise: float) -> Event:
        """What the whole run costs one client."""
        return Repeated(event=steps.event(noise), count=self.times)

    def event(self, noise: float) -> Event:
        """What one round costs, wherever an example is."""
        events = tuple(steps.event(noise) for steps in self.steps)
        if len(events) == 1:
            return events[0]
        bounds = ", ".join(f"{steps.num_examples}" for steps in self.steps)
        return Disjoint(partition=f"clients with at least {bounds} examples", parts=events)


def settle_examples(
    privacy: PrivacySettings,
    pipeline: Pipeline,
    settings: RoundSettings,
    prescribed: Prescribed,
    population: Population,
    *,
    limited: bool,
) -> SettledPrivacy:
    """Local steps with as much noise as the budget asks for, for the client that it is hardest to keep for.

    Args:
      privacy: As the job says.
      pipeline: As the job says.
      settings: The round loop's.
      prescribed: What the strategy has clients do.
      population: Everybody who may be selected.
      limited: Whether cohorts are held to the limits that their selector names; else each client may be asked in each
        round. No amplification by sampling clients is claimed in either case: who takes part is seen.

    Raises:
      PrivacyError: The budget can't be kept, or there is nothing to keep it by.
    """
    mechanism = _mechanism(privacy)
    work = _work(prescribed, settings.rounds)
    cohort = settings.cohort
    limits = None
    if limited and isinstance(cohort, LimitsParticipation):
        limits = cohort.participation(len(population.clients), settings.rounds)
        limits = limits if limits.min_separation > 1 else None
    asked = _asked(population, settings)
    every = 1 if limits is None else limits.min_separation
    plan = _Plan(steps=frontier(asked.sizes, work), every=every, rounds=settings.rounds)
    noise = _noise(privacy, mechanism, plan)
    return SettledPrivacy(
        pipeline=replace(pipeline, example_privacy=mechanism.in_steps(noise)),
        settings=quiet(settings),
        event=plan.event(noise),
        rounds=settings.rounds,
        budget=privacy.budget,
        delta=privacy.at_delta,
        limits=limits,
        examples=_claim(plan, noise, asked, work, privacy.at_delta),
    )


def check_examples(
    privacy: PrivacySettings, pipeline: Pipeline, settings: RoundSettings, prescribed: Prescribed, task: Task
) -> None:
    """Whether a job's parts, as far as they need no data, tell nothing of examples but through noisy steps.

    Raises:
      PrivacyError: They would, or they do not go together.
    """
    _mechanism(privacy)
    noisy = randomising_stage(pipeline)
    if noisy is not None:
        raise PrivacyError(
            f"privacy: local steps hide examples, and the stage `{type(noisy).__name__}` adds noise that hides clients",
            hint='leave the stage out; or protect whole clients: unit = "client", and no mechanism',
        )
    check_releases(settings, task, unit="example")
    _work(prescribed, settings.rounds)


def _mechanism(privacy: PrivacySettings) -> DPSGD:
    found = privacy.mechanism
    if isinstance(found, DPSGD):
        return found
    hint = 'mechanism = { use = "dp_sgd", clip_norm = 1.0 }'
    if found is None:
        raise PrivacyError('privacy: unit = "example" and no mechanism', hint=hint)
    raise PrivacyError(
        f'privacy: unit = "example", and the mechanism {type(found).__name__} hides whole clients in a sum at the '
        "server: it bounds what a client's update does, and not what one of its examples does to that",
        hint=f'{hint}; or unit = "client"',
    )


def _work(prescribed: Prescribed, rounds: int) -> LocalWork:
    """The local work of every round, as far as privacy is concerned.

    Raises:
      PrivacyError: It takes no steps, or steps that were not accounted for.
    """
    first = prescribed(1)
    if first.upload != "delta":
        raise PrivacyError(
            f'privacy: examples are hidden in local steps, and upload = "{first.upload}" takes none',
            hint='use a strategy whose clients take steps, such as "fedavg"',
        )
    if first.accumulate > 1:
        raise PrivacyError(
            f"privacy: accumulate = {first.accumulate} makes one step of several batches, and each example is hidden "
            "in steps of one batch",
            hint="use a larger batch_size",
        )
    for number in range(2, rounds + 1):
        if _batches(prescribed(number)) != _batches(first):
            raise PrivacyError(
                f"privacy: local work in round {number} has other batches, or another number of them, than in round "
                "1; what a round costs must be the same each time",
                hint="keep epochs, steps and batch_size as they are; the learning rate may change",
            )
    return first


def _batches(work: LocalWork) -> tuple[object, ...]:
    return work.batch_size, work.epochs, work.steps, work.accumulate, work.upload


def _asked(population: Population, settings: RoundSettings) -> Population:
    """Those who may be asked, and hold an example."""
    named = set(settings.cohort.clients) if isinstance(settings.cohort, Fixed) else None
    places = [
        i for i, client in enumerate(population.clients) if population.sizes[i] and (named is None or client in named)
    ]
    if not places:
        raise PrivacyError(
            "privacy: no client that may be asked holds a training example",
            hint="look at who holds what: hanse data show",
        )
    return Population(tuple(population.clients[i] for i in places), np.asarray(population.sizes)[places])


def _noise(privacy: PrivacySettings, mechanism: DPSGD, plan: _Plan) -> float:
    """The noise multiplier for all clients.

    Raises:
      PrivacyBudgetError: The mechanism's does not keep the budget, or none does.
    """
    noise = mechanism.noise_multiplier
    if noise is not None:
        if privacy.budget is not None:
            check_budget(privacy.budget, plan.event(noise), plan.times)
        return noise
    # the one that it is hardest to keep for is guessed, and looked for again with what noise that takes
    hardest = max(plan.steps, key=lambda steps: steps.weight)
    while True:
        noise = calibrated(privacy.budget, lambda z, of=hardest: plan.of_one(of, z))  # type: ignore[misc]
        budget = privacy.budget
        assert budget is not None  # or it was refused
        hardest = plan.steps[costliest([plan.of_one(steps, noise) for steps in plan.steps], delta=budget.delta)]
        if account(plan.of_one(hardest, noise), delta=budget.delta).epsilon <= budget.epsilon:
            return noise


def _claim(plan: _Plan, noise: float, asked: Population, work: LocalWork, delta: float | None) -> ExampleClaim:
    """Whom it costs most, and whom least, for `hanse check`."""
    steps = [client_steps(work, int(size)) for size in np.unique(asked.sizes)]
    lightest = min(steps, key=lambda found: (found.weight, -found.num_examples))
    heaviest = max(plan.steps, key=lambda found: found.weight)
    if delta is not None:
        heaviest = plan.steps[costliest([plan.of_one(found, noise) for found in plan.steps], delta=delta)]

    def cost(found: ClientSteps) -> float | None:
        return None if delta is None else account(plan.of_one(found, noise), delta=delta).epsilon

    place = int(np.flatnonzero(np.asarray(asked.sizes) == heaviest.num_examples)[0])
    return ExampleClaim(
        every=plan.every, client=asked.clients[place], steps=heaviest, least=cost(lightest), most=cost(heaviest)
    )
