"""What a pipeline must be like so that nobody sees a single update: whole numbers that add up, nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence

from hanse.core.errors import EncodingError, PipelineError
from hanse.core.messages import Update
from hanse.core.protocols import Aggregator, Clips, Stage, Weighting
from hanse.pipeline.mechanism import Mechanism


def hides_replies(aggregator: Aggregator) -> bool:
    """Whether it adds updates up without anybody seeing one."""
    return bool(getattr(aggregator, "hides_replies", False))


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
            raise PipelineError(
                f"stage `{told}` has each client tell something beside its update, and aggregator `{name}` adds up "
                "updates alone",
                hint="use a fixed norm" if isinstance(stage, Clips) else f"leave `{told}` out",
            )
    if weighting != "uniform" and not any(encodes_weight(stage) for stage in stages):
        raise PipelineError(
            f"aggregator `{name}` adds up whole numbers, each client's once, but the strategy weighs clients by "
            f"{weighting}",
            hint='give the strategy weighting = "uniform", or `modular` a most_weight, to be sent as part of the sum',
        )
    if mechanism is not None and not getattr(mechanism, "in_shares", False):
        raise PipelineError(
            f"{type(mechanism).__name__} has the server clip each update once more, so that its noise is enough "
            f"whatever clients do, and aggregator `{name}` shows it none",
            hint='use mechanism = { use = "distributed" }, whose noise clients add; or aggregator = { use = "sum" }',
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


def bare(update: Update) -> Update:
    """The update as a client may send it where nobody sees it: neither losses nor counts come along.

    Raises:
      EncodingError: It has vectors beside its delta.
    """
    if update.extras:
        raise EncodingError(
            f"round {update.round}: client `{update.client}`: {sorted(update.extras)} would be sent beside the delta, "
            "outside the secure sum; nothing was sent",
            hint="use a strategy that uploads a delta alone",
        )
    return Update(client=update.client, round=update.round, delta=update.delta, num_examples=1, num_steps=1)
