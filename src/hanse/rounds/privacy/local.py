"""Local differential privacy of a run: the stage that each client adds noise by, with as much as the budget asks for.

A site settles this by itself, from the job alone, so it need not believe a coordinator how much noise its budget takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hanse.core.errors import PrivacyError
from hanse.core.protocols import Randomises, Stage
from hanse.pipeline.clip import Clip
from hanse.pipeline.pipeline import Pipeline
from hanse.privacy.budget import Budget
from hanse.privacy.calibration import noise_for_budget
from hanse.privacy.events import Event, Repeated


def randomising_stage(pipeline: Pipeline) -> Randomises | None:
    """The stage that adds noise at the client; None where none does."""
    return next((stage for stage in pipeline.stages if isinstance(stage, Randomises)), None)


def with_local_noise(pipeline: Pipeline, budget: Budget | None, rounds: int) -> Pipeline:
    """The pipeline with its client's noise known.

    Args:
      pipeline: As the job says.
      budget: What a client's reports of all rounds may cost together; None where the stage names its noise.
      rounds: Of the run; a client may be asked in each.

    Raises:
      PrivacyError: There is no such stage, or several, or it stands in the wrong place; or neither a budget nor the
        stage says how much noise.
      PrivacyBudgetError: No noise keeps the budget.
    """
    places = [i for i, stage in enumerate(pipeline.stages) if isinstance(stage, Randomises)]
    if len(places) != 1:
        raise PrivacyError(
            f"privacy: no mechanism, and {len(places) or 'no'} stages that add noise at the client; there is to be one "
            "mechanism, or one such stage",
            hint='mechanism = { use = "gaussian" }, or { use = "local_gaussian", norm = 1.0 } among pipeline.stages',
        )
    (place,) = places
    _check_left_of(pipeline.stages[:place], pipeline.stages[place])
    stage = pipeline.stages[place]
    assert isinstance(stage, Randomises)
    if stage.noise_multiplier is not None:
        return pipeline
    if budget is None:
        raise PrivacyError(
            f"privacy: neither a budget nor noise for `{type(stage).__name__}`",
            hint="for example budget = { epsilon = 4.0, delta = 1e-6 }",
        )
    found = noise_for_budget(_plan(stage, rounds), budget)
    settled = stage.with_noise(found.noise_multiplier)
    return replace(pipeline, stages=(*pipeline.stages[:place], settled, *pipeline.stages[place + 1 :]))


def _plan(stage: Randomises, rounds: int) -> Callable[[float], Event]:
    def plan(noise: float) -> Event:
        settled = stage.with_noise(noise)
        assert isinstance(settled, Randomises)
        return Repeated(event=settled.report(), count=rounds)

    return plan


def _check_left_of(stages: tuple[Stage, ...], noisy: object) -> None:
    for stage in stages:
        changes = not stage.additive or getattr(stage, "needs_sum", False)
        if changes or (isinstance(stage, Clip) and stage.adaptive):
            name = type(stage).__name__
            raise PrivacyError(
                f"stage `{name}` stands left of `{type(noisy).__name__}`, and what it tells beside the numbers would "
                "leave the client without noise",
                hint=f"put `{name}` right of it, where it sees nothing but noisy numbers",
            )
