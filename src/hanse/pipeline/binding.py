"""Stages bound to a round: each told the layout it is given, and what server and clients draw alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hanse.core.errors import PipelineError
from hanse.core.params import ParamSpec
from hanse.core.protocols import ChangesLayout, PerRound, Stage
from hanse.core.randomness import derive_seed
from hanse.core.stage_round import StageRound, StageState

UPDATES = "stage of all"
"""What the seeds are for that all stages of updates share."""

BROADCAST = "stage of the broadcast"
"""What those are for of the stages by which a broadcast is encoded."""


@dataclass(frozen=True, kw_only=True)
class PipelineRound:
    """A round, as all stages know it.

    Args:
      round: From 1.
      seed: The job's; each stage gets one of its own, which is no secret.
      cohort: Clients that were asked, ≥ 1.
      states: Of the stages that have one, by position.
    """

    round: int
    seed: int
    cohort: int
    states: Mapping[str, StageState] = field(default_factory=dict)


def bind(
    stages: Sequence[Stage], given: PipelineRound, spec: ParamSpec, *, purpose: str = UPDATES
) -> tuple[Stage, ...]:
    """The stages that do a round's work.

    Args:
      stages: From left to right.
      given: The round.
      spec: Layout of what the first is given.
      purpose: What the seeds are for that the stages share.

    Raises:
      PipelineError: A stage can't work on what the stages left of it make.
    """
    bound: list[Stage] = []
    layout: ParamSpec | None = spec
    for i, stage in enumerate(stages):
        if isinstance(stage, PerRound):
            if layout is None:
                raise PipelineError(
                    f"stage `{type(stage).__name__}` stands right of one whose encodings differ in size",
                    hint="put the stage that compresses bytes last",
                )
            stage = stage.in_round(
                StageRound(
                    round=given.round,
                    seed=derive_seed(given.seed, purpose, given.round, i),
                    spec=layout,
                    cohort=given.cohort,
                    state=given.states.get(str(i), {}),
                )
            )
        bound.append(stage)
        if isinstance(stage, ChangesLayout):
            layout = stage.encoded_spec(layout) if layout is not None else None
    return tuple(bound)
