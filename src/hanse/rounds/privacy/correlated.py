"""Central noise that hangs together over rounds, under limits on how often a client takes part."""

from __future__ import annotations

from dataclasses import replace

from hanse.core.errors import PrivacyError
from hanse.pipeline.correlated import CorrelatesRounds
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.privacy.budgeting import calibrated, check_budget
from hanse.rounds.privacy.central import expected_cohort, with_mechanism
from hanse.rounds.privacy.releases import quiet
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settled import SettledPrivacy
from hanse.rounds.selection import LimitsParticipation, cohort_size
from hanse.rounds.settings import RoundSettings


def settle_correlated(
    privacy: PrivacySettings,
    mechanism: CorrelatesRounds,
    pipeline: Pipeline,
    settings: RoundSettings,
    num_clients: int,
) -> SettledPrivacy:
    """Noise that hangs together over rounds, under limits on how often a client takes part."""
    name, cohort = type(mechanism).__name__, settings.cohort
    if not isinstance(cohort, LimitsParticipation):
        raise PrivacyError(
            f"{name} needs a limit on how often one client takes part, and {type(cohort).__name__} has none: with "
            "unbounded participation its noise protects nobody",
            hint='use cohort = { use = "separated", size = …, min_separation = … }, or "cyclic"',
        )
    expected = cohort_size(cohort) or expected_cohort(settings, num_clients)
    whole = with_mechanism(pipeline, mechanism, float(expected))
    if whole.clipping is None or whole.clipping.tells:
        raise PrivacyError(
            f"{name} releases sums alone, and an adaptive clip has clients tell of their norms beside them",
            hint='use a fixed norm, or mechanism = { use = "gaussian" }',
        )
    limits = cohort.participation(num_clients, settings.rounds)
    factorisation = mechanism.factorised(limits)
    noise = mechanism.noise_multiplier
    if noise is None:
        noise = calibrated(privacy.budget, factorisation.event)
    elif privacy.budget is not None:
        check_budget(privacy.budget, factorisation.event(noise))
    return SettledPrivacy(
        pipeline=replace(whole, mechanism=mechanism.with_noise(noise)),
        settings=quiet(settings),
        event=factorisation.event(noise),
        rounds=settings.rounds,
        budget=privacy.budget,
        delta=privacy.at_delta,
        factorisation=factorisation,
        limits=limits,
    )
