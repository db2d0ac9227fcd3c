"""The way down: the model as it is sent to clients, encoded once a round for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from hanse.core.errors import HanseError, PipelineError, ProtocolError, RunError, UpdateError
from hanse.core.messages import Broadcast, TrainPhase, Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Adapts, Clips, Randomises, Remembers, Restricts, Shrinks, Stage
from hanse.core.randomness import stream
from hanse.pipeline.binding import BROADCAST, PipelineRound, bind
from hanse.pipeline.encodings import SIDE, flat_spec

if TYPE_CHECKING:
    from hanse.pipeline.pipeline import Pipeline

Base = Literal["zero", "initial"]
"""What the model is sent as a difference to: nothing, or the model before round 1, which follows from the seed."""

_SENDER = "the server"
_MODEL = SIDE + "base"
_DIGEST_BYTES = 16

Initial = Callable[[], Params]
"""Gives the model before round 1, as it is shared."""


def check_broadcast(stages: Sequence[Stage], base: Base) -> None:
    """Whether these stages may encode a broadcast.

    Raises:
      PipelineError: One makes no sense there; the message says why and what to do.
    """
    if base not in ("zero", "initial"):
        raise PipelineError(f'broadcast_base is {base!r}; wanted "zero" or "initial"')
    if base == "initial" and not stages:
        raise PipelineError(
            'broadcast_base = "initial" says what the broadcast is a difference to, and no stage encodes it',
            hint='name the stages: broadcast = [{ use = "quantize", bits = 8 }]',
        )
    for stage in stages:
        why = _objection(stage, base)
        if why is not None:
            raise PipelineError(f"broadcast: stage `{type(stage).__name__}` {why[0]}", hint=why[1])


def _objection(stage: Stage, base: Base) -> tuple[str, str] | None:
    """Why a stage may not encode a broadcast, and what to do; None where it may."""
    if isinstance(stage, Randomises):
        return "hides a client's report, and a broadcast is the server's", "put it into pipeline.stages"
    if isinstance(stage, Clips):
        return "bounds what one client can do to a sum, and a broadcast is no client's", "put it into pipeline.stages"
    if isinstance(stage, Adapts) and stage.initial_state():
        return "learns from clients' updates, and a broadcast has none", "put it into pipeline.stages"
    if isinstance(stage, Restricts) and stage.restricts:
        return "restricts what clients train", "put it into pipeline.stages, as the first"
    if getattr(stage, "needs_sum", False):
        return "makes whole numbers that clients' sums are taken of, and nobody adds broadcasts up", "use quantize"
    if isinstance(stage, Remembers) and stage.remembers:
        return (
            "keeps what it did not send for the next time, and each broadcast is the whole model anew, from which "
            "nothing is missing that was not sent before",
            "set feedback = false",
        )
    if getattr(stage, "own", False):
        return "draws something else for each client, and a broadcast is encoded once for all", "leave own out"
    if base == "zero" and getattr(stage, "for_changes", False):
        return (
            "sends the part of a change that tells most, and would leave little of a model itself",
            'send the difference to the model before round 1: broadcast_base = "initial"',
        )
    return None


def encoded(pipeline: Pipeline, broadcast: Broadcast, given: PipelineRound, *, initial: Initial) -> Broadcast:
    """A broadcast as clients get it: what travels is encoded, and the model is what they decode.

    With w the server's model, b the base, C the stages, and m the sub-model's ones and zeros where there is one:

        sent = C(m ∘ (w - b))        w' = m ∘ (b + C⁻¹(sent))

    Clients start from w' and measure their update against it; the strategy's step adds the aggregate to w. The
    strategy's further vectors travel as they are.

    Args:
      pipeline: The run's.
      broadcast: The strategy's.
      given: The round.
      initial: For ``broadcast_base = "initial"``.

    Raises:
      RunError: A stage can't encode the model.

    References:
      Caldas, Konečný, McMahan, Talwalkar 2018, arXiv:1812.07210, sections 2 (lossy compression of the model) and 3
      (federated dropout), with one sub-model a round for all clients of the cohort.
    """
    spec = broadcast.params.spec
    if not pipeline.encodes_broadcast or not spec.size:
        return broadcast
    stages = broadcast_stages(pipeline, given, spec)
    base = initial() if pipeline.broadcast_base == "initial" else None
    found = broadcast.params if base is None else broadcast.params - base
    update = Update(client=_SENDER, round=given.round, delta=found, num_examples=1, num_steps=0)
    try:
        for i, stage in enumerate(stages):
            update = stage.encode(update, stream(given.seed, "broadcast", given.round, i))
    except UpdateError as error:
        raise RunError(f"the model of round {given.round} can't be encoded for its clients: {error.message}") from error
    sent = {"params": update.delta, **update.extras}
    if base is not None:
        digest = np.frombuffer(_digest(base), np.uint8)
        sent[_MODEL] = Params(flat_spec(_MODEL, len(digest), "uint8"), digest)
    return replace(broadcast, params=_decoded(pipeline, stages, update, base), sent=sent)


def received(pipeline: Pipeline, phase: TrainPhase, *, seed: int, spec: ParamSpec, initial: Initial) -> TrainPhase:
    """A phase whose broadcast came from another machine, with the model that it stands for.

    Args:
      pipeline: The run's.
      phase: Its broadcast is what travelled.
      seed: The job's.
      spec: Layout of the shared model.
      initial: For ``broadcast_base = "initial"``.

    Raises:
      ProtocolError: What came is none of what `encoded` makes of a model of this layout.
    """
    if not pipeline.encodes_broadcast or not spec.size:
        return phase
    given = PipelineRound(round=phase.round, seed=seed, cohort=phase.cohort, states=phase.stages)
    stages = broadcast_stages(pipeline, given, spec)
    side = {name: vector for name, vector in phase.broadcast.extras.items() if name.startswith(SIDE)}
    own = {name: vector for name, vector in phase.broadcast.extras.items() if name not in side}
    where = f"the broadcast of round {phase.round}"
    base = _agreed(side.pop(_MODEL, None), initial, where) if pipeline.broadcast_base == "initial" else None
    update = Update(
        client=_SENDER, round=phase.round, delta=phase.broadcast.params, num_examples=1, num_steps=0, extras=side
    )
    try:
        params = _decoded(pipeline, stages, update, base)
    except HanseError as error:
        raise ProtocolError(f"{where} can't be decoded: {error.message}") from error
    difference = spec.difference(params.spec)
    if difference:
        raise ProtocolError(f"{where}, decoded, {difference}")
    if not params.is_finite():
        raise ProtocolError(f"{where}, decoded, holds NaN or an infinity")
    return replace(phase, broadcast=Broadcast(params, own))


def broadcast_stages(pipeline: Pipeline, given: PipelineRound, spec: ParamSpec) -> tuple[Stage, ...]:
    """The stages that encode a round's broadcast: one that makes the model smaller, if any, and those named.

    Raises:
      PipelineError: One can't work on what the stages left of it make.
    """
    first = pipeline.shrinking
    if first is None:
        return bind(pipeline.broadcast, given, spec, purpose=BROADCAST)
    [part] = bind((first,), given, spec)  # as it is bound for updates: both directions draw the same units
    smaller = part.encoded_spec(spec) if isinstance(part, Shrinks) else None
    assert smaller is not None
    return (part, *bind(pipeline.broadcast, given, smaller, purpose=BROADCAST))


def _decoded(pipeline: Pipeline, stages: Sequence[Stage], update: Update, base: Params | None) -> Params:
    """What clients start from."""
    for stage in reversed(stages):
        update = stage.decode(update)
    if update.extras:
        raise ProtocolError(f"it brought `{next(iter(update.extras))[:100]}`, which nobody knows here")
    found = update.delta if base is None else base + update.delta
    part = stages[0] if pipeline.shrinking is not None else None
    if isinstance(part, Shrinks) and base is not None:
        found = found.with_vector(np.where(part.trained(""), found.numpy(), found.numpy().dtype.type(0)))
    return found


def _agreed(told: Params | None, initial: Initial, where: str) -> Params:
    """The base, if it is the one that the server took."""
    base = initial()
    here = np.frombuffer(_digest(base), np.uint8)
    if told is None or not np.array_equal(told.numpy(), here):
        raise ProtocolError(
            f"{where} is a difference to a model before round 1 that comes out otherwise here",
            hint='other versions or processors may draw other numbers; use broadcast_base = "zero"',
        )
    return base


def _digest(base: Params) -> bytes:
    return hashlib.sha256(base.numpy().tobytes()).digest()[:_DIGEST_BYTES]


__all__ = ["Base", "broadcast_stages", "check_broadcast", "encoded", "received"]
