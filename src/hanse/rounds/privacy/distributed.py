"""Noise in shares: each client adds its own, and sums of enough clients are private.

A site settles this by itself, from the job alone, as it does for local noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from hanse.core.errors import PipelineError, PrivacyError
from hanse.core.params import ParamSpec
from hanse.core.protocols import Clips, Task
from hanse.pipeline.checks import check_pipeline
from hanse.pipeline.distributed import BLOCK, DistributedNoise
from hanse.pipeline.integer_noise import IntegerNoise
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.rotate import Rotate
from hanse.privacy.events import Event, Repeated
from hanse.rounds.privacy.budgeting import calibrated, check_budget
from hanse.rounds.privacy.central import sampled, with_mechanism
from hanse.rounds.privacy.releases import quiet
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.privacy.settled import SettledPrivacy
from hanse.rounds.selection import Everyone, Fixed, Uniform
from hanse.rounds.settings import RoundSettings

_FEWEST = 2  # of one client's noise there are no shares: that is local privacy
_MOST_STRETCHED = math.sqrt(2)  # by rounding, in which case the noise is as well
_MOST_BITS = 24


@dataclass(frozen=True, kw_only=True)
class _Shares:
    """Who adds noise to what, before it is known how much.

    Args:
      mechanism: As the job says.
      norm: C.
      cohort: K.
      dimension: Elements after the rotation.
      block: Of the rotation.
    """

    mechanism: DistributedNoise
    norm: float
    cohort: int
    dimension: int
    block: int

    def stage(self, noise_multiplier: float) -> IntegerNoise:
        settled = self.mechanism.with_noise(noise_multiplier)
        return settled.share(self.norm, self.cohort, self.dimension, self.block)

    def event(self, noise_multiplier: float) -> Event:
        return self.stage(noise_multiplier).release_of_sum(self.mechanism.surely(self.cohort), self.dimension)


def settle_distributed(
    privacy: PrivacySettings,
    mechanism: DistributedNoise,
    pipeline: Pipeline,
    settings: RoundSettings,
    spec: ParamSpec,
    num_clients: int | None,
    *,
    amplified: bool,
) -> SettledPrivacy:
    """Put the rotation and the noisy integers behind the clip, with as much noise as the budget asks for.

    Args:
      privacy: As the job says.
      mechanism: That of `privacy`.
      pipeline: As the job says.
      settings: The round loop's; a round needs as many replies as shares are accounted for.
      spec: Layout of the model; what is shared of it may be less.
      num_clients: In the population; None where that is not known, as at a site.
      amplified: Whether sampling may be claimed at all.

    Raises:
      PipelineError: The pipeline's parts do not go together with noise in shares.
      PrivacyError: The cohort has no known size, or the modulus is too small for it.
      PrivacyBudgetError: The budget can't be kept.
    """
    cohort = _known_cohort(settings, num_clients)
    shares = _shares(mechanism, pipeline, spec, cohort)
    surely = mechanism.surely(cohort)
    if surely < _FEWEST:
        raise PrivacyError(
            f"a cohort of {cohort} of which {cohort - surely} may fail leaves {surely}: nobody to share with",
            hint='use a larger cohort, or { use = "local_gaussian", norm = … } among the stages and no mechanism',
        )

    hidden = amplified and mechanism.secret_cohorts and num_clients is not None

    def event(shares: _Shares, noise: float) -> Event:
        released = shares.event(noise)
        return sampled(settings, num_clients or cohort, released) if hidden else released

    def settle(shares: _Shares) -> float:
        """The noise multiplier."""
        noise = mechanism.noise_multiplier
        if noise is None:
            noise = calibrated(privacy.budget, lambda z: Repeated(event=event(shares, z), count=settings.rounds))
        return noise

    _check_modulus(shares, settle)
    noise = settle(shares)
    if mechanism.noise_multiplier is not None and privacy.budget is not None:
        check_budget(privacy.budget, event(shares, noise), settings.rounds)
    whole = with_mechanism(pipeline, mechanism, float(cohort))
    rotate = Rotate(block=BLOCK)
    return SettledPrivacy(
        pipeline=replace(whole, mechanism=None, stages=(*pipeline.stages, rotate, shares.stage(noise))),
        settings=replace(quiet(settings), min_clients=max(settings.min_clients, surely)),
        event=event(shares, noise),
        rounds=settings.rounds,
        budget=privacy.budget,
        delta=privacy.at_delta,
        shares=mechanism.with_noise(noise),
    )


def with_shares(privacy: PrivacySettings, pipeline: Pipeline, settings: RoundSettings, task: Task) -> Pipeline:
    """The pipeline of a site, which adds its share where the job says so; else as it is.

    Args:
      privacy: As the job says.
      pipeline: As the job says.
      settings: As the job says.
      task: Bound to the layout that all sites agreed on.

    Raises:
      PipelineError, PrivacyError, PrivacyBudgetError: As `settle_distributed` does.
    """
    if not isinstance(privacy.mechanism, DistributedNoise):
        return pipeline
    spec = task.init_params(settings.seed).spec
    return settle_distributed(privacy, privacy.mechanism, pipeline, settings, spec, None, amplified=False).pipeline


def _known_cohort(settings: RoundSettings, num_clients: int | None) -> int:
    cohort = settings.cohort
    if isinstance(cohort, Uniform):
        return cohort.size
    if isinstance(cohort, Fixed):
        return len(cohort.clients)
    if isinstance(cohort, Everyone) and num_clients is not None:
        return num_clients
    why = (
        "no site knows how many it is among"
        if isinstance(cohort, Everyone)
        else "its rounds are of no size that is known beforehand"
    )
    raise PrivacyError(
        f"cohort: clients add noise by how many they are, and with {type(cohort).__name__} {why}",
        hint='use cohort = { use = "uniform", size = … }',
    )


def _shares(mechanism: DistributedNoise, pipeline: Pipeline, spec: ParamSpec, cohort: int) -> _Shares:
    """What noise is added to.

    Raises:
      PipelineError: It can't be bounded, or not be summed up.
    """
    stages = pipeline.stages
    for stage in stages:
        if not stage.additive or getattr(stage, "needs_sum", False):
            name = type(stage).__name__
            raise PipelineError(
                f"stage `{name}` has replies opened one by one, and noise in shares is enough in sums alone: clients "
                "make whole numbers with noise of what the clip leaves, and only these are added up",
                hint=f"leave `{name}` out: residues are {mechanism.bits} bits an element already",
            )
    # all that central noise asks for as well, said of this mechanism
    check_pipeline(stages, with_mechanism(pipeline, mechanism, 1.0).aggregator, pipeline.weighting, mechanism)
    clip = pipeline.clipping
    assert clip is not None  # or it was refused
    if not isinstance(stages[-1], Clips):
        raise PipelineError(
            f"stage `{type(stages[-1]).__name__}` stands right of the clip, and noise in shares is made for what the "
            "clip leaves",
            hint="put the clip last; a rotation comes behind it by itself",
        )
    if clip.tells:
        raise PrivacyError(
            "DistributedNoise hides sums of whole numbers, and an adaptive clip has clients tell of their norms beside "
            "them",
            hint='use a fixed norm, or mechanism = { use = "gaussian" }',
        )
    rotated = Rotate(block=BLOCK).encoded_spec(pipeline.aggregated_spec(spec)).size
    return _Shares(
        mechanism=mechanism,
        norm=clip.sensitivity,
        cohort=cohort,
        dimension=rotated,
        block=Rotate(block=BLOCK).block_of(pipeline.aggregated_spec(spec).size),
    )


def _check_modulus(shares: _Shares, settle: Callable[[_Shares], float]) -> None:
    """Refuse a grid so coarse that rounding would be what most of the noise is for.

    Raises:
      PrivacyError: It is; the message says the bits that are needed.
    """

    def stretched(bits: int) -> float:
        """How many times as long as the clip a rounded update may be."""
        tried = replace(shares, mechanism=replace(shares.mechanism, bits=bits))
        try:
            stage = tried.stage(settle(tried))
        except PrivacyError:
            if shares.mechanism.noise_multiplier is None and bits == _MOST_BITS:
                raise  # not for want of bits
            return math.inf
        return math.sqrt(stage.norm_squared) * stage.granularity / shares.norm

    bits = shares.mechanism.bits
    found = stretched(bits)
    if found <= _MOST_STRETCHED:
        return
    needed = next((b for b in range(bits + 1, _MOST_BITS + 1) if stretched(b) <= _MOST_STRETCHED), None)
    rounded = f"{found:.3g} times" if math.isfinite(found) else "arbitrarily many times"
    raise PrivacyError(
        f"{bits} bits are too few for sums of {shares.cohort:,} clients with their noise: in steps so coarse, rounding "
        f"makes an update of {shares.dimension:,} elements {rounded} as long as the clip, and noise has to grow too",
        hint=f"use bits = {needed} or more" if needed else "use a smaller cohort, or less noise: 24 bits are the most",
    )
