"""Which stages, aggregators and mechanisms go together; what does not is refused when a pipeline is built."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hanse.core.errors import PipelineError, did_you_mean
from hanse.core.params import ParamSpec, TensorSpec
from hanse.core.protocols import Adapts, Aggregator, ChangesLayout, Clips, Remembers, Restricts, Stage, Weighting
from hanse.pipeline.hidden import check_hidden, check_weights, hides_replies
from hanse.pipeline.mechanism import Mechanism


def check_pipeline(
    stages: Sequence[Stage], aggregator: Aggregator, weighting: Weighting, mechanism: Mechanism | None
) -> None:
    """See `Pipeline`.

    Raises:
      PipelineError: Two parts disagree; the message names both and says what to do.
    """
    if weighting not in ("examples", "uniform"):
        raise PipelineError(
            f"weighting is {weighting!r}; clients are weighed by examples or uniformly",
            hint=did_you_mean(str(weighting), ("examples", "uniform")),
        )
    for stage in stages:
        if stage.needs_uniform_weights and weighting != "uniform":
            raise PipelineError(
                f"stage `{type(stage).__name__}` bounds what one client can do to an unweighted sum, "
                f"but the strategy weighs clients by {weighting}",
                hint='give the strategy weighting = "uniform"',
            )
        if getattr(stage, "needs_sum", False) and not getattr(aggregator, "sums", False):
            raise PipelineError(
                f"stage `{type(stage).__name__}` makes whole numbers whose sum means something, and aggregator "
                f"`{type(aggregator).__name__}` gives no sum",
                hint='use aggregator = { use = "sum" }',
            )
    check_weights(stages, aggregator, weighting)
    if hides_replies(aggregator):
        check_hidden(stages, aggregator, weighting, mechanism)
    if mechanism is not None:
        _check_mechanism(stages, aggregator, weighting, mechanism)


def check_order(stages: Sequence[Stage], opened_up_to: int) -> None:
    """Whether stages that must see the aggregate do, and sums are of one layout.

    Args:
      stages: From left to right.
      opened_up_to: Where single replies are opened down to.

    Raises:
      PipelineError: One does not.
    """
    check_chain(stages)
    for stage in stages[opened_up_to:]:
        if isinstance(stage, Adapts) and stage.initial_state():
            raise PipelineError(
                f"stage `{type(stage).__name__}` learns from the aggregate, but replies are opened one by one to the "
                "left of it",
                hint="put it left of all stages that are not additive, and use an aggregator that streams",
            )


_PROBE = ParamSpec((TensorSpec("probe", (8, 8)),))


def check_chain(stages: Sequence[Stage]) -> None:
    """Whether each stage can work on what the one left of it makes; raises `PipelineError`."""
    layout: ParamSpec | None = _PROBE
    maker, beside, redraws = "", dict[str, str](), ""
    for i, stage in enumerate(stages):
        name = type(stage).__name__
        if i and isinstance(stage, Restricts) and stage.restricts:
            raise _not_first(name, stages[0])
        if layout is None:
            raise PipelineError(
                f"stage `{name}` stands right of `{maker}`, whose encodings differ in size",
                hint=f"put `{maker}` last",
            )
        if np.dtype(layout.dtype).kind != "f" and not getattr(stage, "takes_any", False):
            raise PipelineError(
                f"stage `{name}` works on numbers, and `{maker}` left of it makes {layout.dtype} of them",
                hint=f"put `{name}` left of `{maker}`",
            )
        if redraws and isinstance(stage, Remembers) and stage.remembers:
            raise PipelineError(
                f"stage `{name}` keeps at the client what it did not send, and `{redraws}` left of it makes something "
                "else of each element every round, so what is kept would be added in the wrong place",
                hint=f"put `{name}` left of `{redraws}`, or set feedback = false",
            )
        for vector in getattr(stage, "beside", ()):
            if vector in beside:
                raise PipelineError(
                    f"stages `{beside[vector]}` and `{name}` both send a vector `{vector}` beside the delta",
                    hint="use one of them",
                )
            beside[vector] = name
        if isinstance(stage, ChangesLayout) and not (i == 0 and isinstance(stage, Restricts)):  # names tensors
            layout, maker = stage.encoded_spec(layout), name
        redraws = redraws or (name if getattr(stage, "redraws", False) else "")


def _not_first(name: str, first: Stage) -> PipelineError:
    """A stage that restricts training has to be the first, so there is one at most."""
    left = type(first).__name__
    if isinstance(first, Restricts) and first.restricts:
        return PipelineError(
            f"stages `{left}` and `{name}` both restrict what clients train, and only one stage may",
            hint="leave one of them out",
        )
    return PipelineError(
        f"stage `{name}` restricts what clients train, and `{left}` stands left of it", hint=f"put `{name}` first"
    )


def _check_mechanism(
    stages: Sequence[Stage], aggregator: Aggregator, weighting: Weighting, mechanism: Mechanism
) -> None:
    name = type(mechanism).__name__
    if not any(isinstance(stage, Clips) for stage in stages):
        raise PipelineError(
            f"{name} hides what one client can do to a sum, and no stage bounds that",
            hint='add { use = "clip", norm = 1.0 } to pipeline.stages',
        )
    bounding = [stage for stage in stages if isinstance(stage, Clips)][-1]
    if not math.isfinite(bounding.sensitivity):
        raise PipelineError(
            f"{name} needs a bound in L2, and `{type(bounding).__name__}` gives no bound in L2",
            hint='use kind = "l2"',
        )
    if weighting != "uniform":
        raise PipelineError(
            f"{name} hides one client in an unweighted sum, but the strategy weighs clients by {weighting}: a weight "
            "tells how much data a client has, and moves the mean by more than the clip allows",
            hint='give the strategy weighting = "uniform"',
        )
    if aggregator.needs_all or not getattr(aggregator, "sums", False):
        raise PipelineError(
            f"{name} makes a sum private, and aggregator `{type(aggregator).__name__}` gives none",
            hint='use aggregator = { use = "sum" }',
        )
    if getattr(aggregator, "expected", None) is None:
        raise PipelineError(
            f"{name} hides who answered, and a sum that is divided by the number of those who did tells it",
            hint='use aggregator = { use = "sum", expected = … } with the expected size of a cohort',
        )
    clip = max(i for i, stage in enumerate(stages) if isinstance(stage, Clips))
    for stage in stages[:clip]:
        if isinstance(stage, Clips) and stage.tells:
            raise PipelineError(
                f"stage `{type(stage).__name__}` tells something of each client and stands left of another clip, "
                f"where {name} would not know what noise that needs",
                hint="let the rightmost clip alone adapt",
            )
        if not stage.additive:
            raise PipelineError(
                f"stage `{type(stage).__name__}` stands left of the clip and is not additive, so the server would "
                "have to open single updates past the point where they are bounded",
                hint="put the clip first",
            )
