"""What a pipeline must be like so that nobody sees a single update: whole numbers that add up, and what adds up too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from hanse.core.errors import EncodingError, PipelineError
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.messages import Update
from hanse.core.protocols import Aggregator, Clips, CombinesSums, Randomises, SharesNoise, Stage, Weighting
from hanse.pipeline.mechanism import Mechanism


def hides_replies(aggregator: Aggregator) -> bool:
    """Whether it adds updates up without anybody seeing one."""
    return bool(getattr(aggregator, "hides_replies", False))


def adds_numbers(aggregator: Aggregator) -> bool:
    """Whether it adds up other numbers as well as it does updates, without anybody seeing one."""
    return hides_replies(aggregator) and bool(getattr(aggregator, "adds_numbers", False))


def is_noisy(
    stages: Sequence[Stage], mechanism: Mechanism | None, example_privacy: ExamplePrivacy | None = None
) -> bool:
    """Whether noise hides what clients send: whatever they told beside it would have none."""
    return (
        mechanism is not None
        or example_privacy is not None
        or any(isinstance(stage, Randomises | SharesNoise) for stage in stages)
    )


def encodes_weight(stage: Stage) -> bool:
    """Whether a client's weight is in its whole numbers."""
    return bool(getattr(stage, "encodes_weight", False))


def check_weights(stages: Sequence[Stage], aggregator: Aggregator, weighting: Weighting) -> None:
    """Whether weights that are sent as part of a sum are needed there.

    Raises:
      PipelineError: All weigh alike, the aggregator weighs by itself, or what is summed is divided by something else.
    """
    for stage in stages:
        if not encodes_weight(stage):
            continue
        name = f"stage `{type(stage).__name__}`"
        if weighting == "uniform":
            raise PipelineError(
                f"{name} sends each client's weight with its numbers, and the strategy weighs all alike",
                hint='leave most_weight out, or give the strategy weighting = "examples"',
            )
        if not hides_replies(aggregator) or getattr(aggregator, "expected", None) is not None:
            raise PipelineError(
                f"{name} sends each client's weight with its numbers, which a secure sum without `expected` can make a "
                f"mean of, and aggregator `{type(aggregator).__name__}` is none",
                hint='use aggregator = { use = "secure_sum" }',
            )


def check_hidden(
    stages: Sequence[Stage], aggregator: Aggregator, weighting: Weighting, mechanism: Mechanism | None
) -> None:
    """Whether stages can do with the sum alone. That it is one of whole numbers, `residue_bits` asks later.

    Raises:
      PipelineError: One would have single updates opened, or tell something beside them; or weights differ.
    """
    name = type(aggregator).__name__
    for stage in stages:
        told = type(stage).__name__
        if not stage.additive:
            raise PipelineError(
                f"stage `{told}` is not additive: the server has to open each update by itself, and aggregator "
                f"`{name}` shows it none",
                hint=f"leave `{told}` out; random_k, rotate and modular can be added up before they are opened",
            )
        if getattr(stage, "beside", ()) or (isinstance(stage, Clips) and stage.tells):
            _check_told(stage, stages, aggregator, mechanism)
    if weighting != "uniform" and not any(encodes_weight(stage) for stage in stages):
        raise PipelineError(
            f"aggregator `{name}` adds up whole numbers, each client's once, but the strategy weighs clients by "
            f"{weighting}",
            hint='give the strategy weighting = "uniform", or `modular` a most_weight, to be sent as part of the sum',
        )
    if mechanism is not None and isinstance(aggregator, CombinesSums):
        raise PipelineError(
            f"{type(mechanism).__name__} makes one sum of the cohort private, and aggregator `{name}` opens one of "
            "each group",
            hint='use aggregator = { use = "secure_sum" }',
        )
    if mechanism is not None and not getattr(mechanism, "in_shares", False):
        raise PipelineError(
            f"{type(mechanism).__name__} has the server clip each update once more, so that its noise is enough "
            f"whatever clients do, and aggregator `{name}` shows it none",
            hint='use mechanism = { use = "distributed" }, whose noise clients add; or aggregator = { use = "sum" }',
        )


def _check_told(stage: Stage, stages: Sequence[Stage], aggregator: Aggregator, mechanism: Mechanism | None) -> None:
    """Whether what a stage has clients tell can be added up with their updates: single numbers, and without weights."""
    told, name = type(stage).__name__, type(aggregator).__name__
    single = isinstance(stage, Clips) and set(getattr(stage, "beside", ())) <= set(stage.tells)
    weighed = any(encodes_weight(each) for each in stages)
    if adds_numbers(aggregator) and single and not weighed and not is_noisy(stages, mechanism):
        return
    why = ""
    if single and weighed:
        why = ", each client's once, and weighs updates by examples"
    elif single and is_noisy(stages, mechanism):
        why = ", and what is told beside them would have no noise"
    raise PipelineError(
        f"stage `{told}` has each client tell something beside its update, and aggregator `{name}` adds up "
        f"updates alone{why}",
        hint="use a fixed norm" if isinstance(stage, Clips) else f"leave `{told}` out",
    )


def residue_bits(stages: Sequence[Stage], aggregator: Aggregator) -> int:
    """b, modulo which the last stage's whole numbers are meant.

    Raises:
      PipelineError: It makes none.
    """
    bits = getattr(stages[-1], "residue_bits", None) if stages else None
    if bits is None:
        what = f"stage `{type(stages[-1]).__name__}` makes" if stages else "updates without stages are"
        raise PipelineError(
            f"aggregator `{type(aggregator).__name__}` adds up whole numbers modulo 2^b, and {what} none",
            hint='put { use = "modular", range = … } last in pipeline.stages, or use [privacy] mechanism = '
            '{ use = "distributed" }, which makes whole numbers by itself',
        )
    return int(bits)


def bare(update: Update, *, tells: bool = False, beside: Collection[str] = ()) -> Update:
    """The update as a client may send it, or hold it for a sum, where nobody sees it.

    Args:
      update: From the last stage.
      tells: Whether losses and counts are added up with it; else they do not come along.
      beside: Names of the vectors that stages tell, where they are added up too.

    Raises:
      EncodingError: It has other vectors beside its delta.
    """
    strangers = sorted(set(update.extras) - set(beside if tells else ()))
    if strangers:
        raise EncodingError(
            f"round {update.round}: client `{update.client}`: {strangers} would be sent beside the delta, "
            "outside the secure sum; nothing was sent",
            hint="use a strategy that uploads a delta alone",
        )
    if tells:
        return replace(update, num_steps=1, seconds=0.0)
    return Update(client=update.client, round=update.round, delta=update.delta, num_examples=1, num_steps=1)
