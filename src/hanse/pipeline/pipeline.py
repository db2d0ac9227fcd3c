"""`Pipeline`: a flat list of two-sided stages around one aggregator, checked when it is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from hanse.aggregators.mean import Mean
from hanse.core.aggregate import Aggregate
from hanse.core.errors import EncodingError, NonFiniteUpdateError, PipelineError, SpecMismatchError
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import LocalWork
from hanse.core.messages import TrainPhase, Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import (
    Adapts,
    Admits,
    Aggregator,
    ChangesLayout,
    Clips,
    CombinesSums,
    PerRound,
    Remembers,
    Shrinks,
    Stage,
    Weighting,
)
from hanse.core.randomness import from_system
from hanse.core.stage_round import StageState
from hanse.pipeline.binding import PipelineRound, bind
from hanse.pipeline.checks import check_chain, check_order, check_pipeline
from hanse.pipeline.downlink import Base, check_broadcast
from hanse.pipeline.encodings import SIDE, flat_spec
from hanse.pipeline.hidden import adds_numbers, bare, hides_replies, is_noisy
from hanse.pipeline.mechanism import Mechanism
from hanse.pipeline.restricted import restricted_work


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What happens to updates between a client's trainer and the strategy's step.

    Clients encode from left to right. The server decodes single replies from the right down to the
    leftmost stage that is not additive, accumulates there in a stream, and finishes the stages left of
    it on the aggregate, from right to left. Last, a sum is divided by its weight.

    With a `mechanism` the server decodes single replies down to the rightmost stage that clips, and clips once
    more itself; the mechanism releases their sum before that stage and those left of it finish.

    Args:
      stages: In the order in which clients apply them.
      aggregator: Many updates into one.
      weighting: How updates are weighed; a strategy declares it.
      mechanism: Makes the sum private.
      example_privacy: What makes clients' own steps private, so that updates hide each example before any stage.
      broadcast: By which the model is encoded that clients start from, once a round for all; empty sends it as it is.
      broadcast_base: What is encoded: ``"zero"``, the model itself, or ``"initial"``, its difference to the model
        before round 1, which every client makes from the job's seed.

    Raises:
      PipelineError: Two parts disagree; the message names both and says what to do.
    """

    stages: tuple[Stage, ...] = ()
    aggregator: Aggregator = field(default_factory=Mean)
    weighting: Weighting = "examples"
    mechanism: Mechanism | None = None
    example_privacy: ExamplePrivacy | None = None
    broadcast: tuple[Stage, ...] = ()
    broadcast_base: Base = "zero"

    def __post_init__(self) -> None:
        check_pipeline(self.stages, self.aggregator, self.weighting, self.mechanism)
        check_order(self.stages, self.opened_up_to)
        check_broadcast(self.broadcast, self.broadcast_base)
        check_chain(self.broadcast)

    @property
    def opened_up_to(self) -> int:
        """Stages from this position on are decoded on single replies; those before it, on the aggregate."""
        if self.aggregator.needs_all:
            return 0
        closed = [i for i, stage in enumerate(self.stages) if not stage.additive]
        most = len(self.stages) if self.mechanism is None else self._clip + 1
        return min([most, *closed[:1]])

    @cached_property
    def remembers(self) -> bool:
        """Whether clients keep something for a stage from round to round."""
        return any(isinstance(stage, Remembers) and stage.remembers for stage in self.stages)

    @property
    def hides_replies(self) -> bool:
        """Whether nobody sees a single update, so that clients send nothing beside what is summed."""
        return hides_replies(self.aggregator)

    @property
    def adds_numbers(self) -> bool:
        """Whether losses, counts and metrics of clients are added up where nobody sees those of one.

        Not where noise hides the updates: a sum of what is told beside them would have none.
        """
        return adds_numbers(self.aggregator) and not is_noisy(self.stages, self.mechanism, self.example_privacy)

    @property
    def shrinking(self) -> Shrinks | None:
        """The stage by which clients train a smaller model, if any; only the first may."""
        first = self.stages[0] if self.stages else None
        return first if isinstance(first, Shrinks) and first.shrinks else None

    @property
    def encodes_broadcast(self) -> bool:
        """Whether clients are sent something else than the model as it is."""
        return bool(self.broadcast) or self.shrinking is not None

    def restricted(self, work: LocalWork) -> LocalWork:
        """What clients do, where the first stage restricts their training; raises `PipelineError` where it can't be."""
        return restricted_work(self.stages, work)

    def protected(self, work: LocalWork) -> LocalWork:
        """What clients are asked to do: a strategy's work, with each example hidden where the run promises that.

        Raises:
          PipelineError: The strategy's work says by itself how examples are hidden, and nobody would account for it.
        """
        if work.example_privacy is not None:
            raise PipelineError(
                "the strategy's local work has an example_privacy of its own, which no ledger accounts for",
                hint='leave it out, and promise it: [privacy] unit = "example", mechanism = { use = "dp_sgd", … }',
            )
        return work if self.example_privacy is None else replace(work, example_privacy=self.example_privacy)

    def initial_states(self) -> dict[str, StageState]:
        """The states before round 1 of the stages that have one, by position."""
        found = {str(i): stage.initial_state() for i, stage in enumerate(self.stages) if isinstance(stage, Adapts)}
        return {place: state for place, state in found.items() if state}

    def next_states(self, states: Mapping[str, StageState], aggregate: Aggregate) -> dict[str, StageState]:
        """The states after a round.

        Args:
          states: Before it.
          aggregate: The round's, as `finish` returned it.
        """
        found = {}
        for place, state in states.items():
            stage, prefix = self.stages[int(place)], f"{place}."
            assert isinstance(stage, Adapts)
            measured = {
                name.removeprefix(prefix): value
                for name, value in aggregate.measured.items()
                if name.startswith(prefix)
            }
            found[place] = stage.next_state(state, measured)
        return found

    def in_round(self, given: PipelineRound, spec: ParamSpec) -> Pipeline:
        """The pipeline that does a round's work.

        Args:
          given: The round.
          spec: Layout of the shared model.

        Raises:
          PipelineError: A stage can't work on what the stages left of it make.
        """
        if not any(isinstance(stage, PerRound) for stage in self.stages):
            return self
        return replace(self, stages=bind(self.stages, given, spec))

    def aggregated_spec(self, spec: ParamSpec) -> ParamSpec:
        """The layout in which updates are aggregated: `spec` as the stages that stay closed have encoded it."""
        for stage in self.stages[: self.opened_up_to]:
            if isinstance(stage, ChangesLayout):
                encoded = stage.encoded_spec(spec)
                assert encoded is not None  # refused when the pipeline was built: sums need one layout
                spec = encoded
        return spec

    def encode(self, update: Update, rngs: Iterable[np.random.Generator]) -> Update:
        """The client's half: all stages, left to right, where nothing was kept.

        Args:
          update: From the trainer.
          rngs: One generator for each stage.
        """
        return self.encode_and_keep(update, {}, rngs)[0]

    def encode_and_keep(
        self, update: Update, kept: Mapping[str, Params], rngs: Iterable[np.random.Generator]
    ) -> tuple[Update, dict[str, Params]]:
        """The client's half, and what the client keeps for its next round.

        Args:
          update: From the trainer.
          kept: What this returned in the client's last round whose update counted; empty in its first.
          rngs: One generator for each stage.
        """
        keeps: dict[str, Params] = {}
        for i, (stage, rng) in enumerate(zip(self.stages, rngs, strict=True)):
            if i in self._remembering and isinstance(stage, Remembers):
                name = f"{KEPT}{i}"
                update, keep = stage.encode_and_keep(update, kept.get(name), rng)
                if keep is not None:
                    keeps[name] = keep
            else:
                update = stage.encode(update, rng)
        return self._bare(update) if self.hides_replies else update, keeps

    def _bare(self, update: Update) -> Update:
        beside = {name for stage in self.stages for name in getattr(stage, "beside", ())}
        return bare(update, tells=self.adds_numbers, beside=beside)

    def open(self, update: Update, *, expected: ParamSpec | None = None, bare: bool = False) -> Update:
        """The server's half for one reply: decode as far as it must be, and check it.

        Args:
          update: As the client sent it.
          expected: The layout of the shared model, which the client's delta had before it was encoded.
          bare: Whether the strategy has no vectors uploaded beside the delta.

        Raises:
          EncodingError: A stage can't decode it, or it is none of that stage's encodings.
          SpecMismatchError: The update, opened so far, has another layout than follows from `expected`.
          NonFiniteUpdateError: The update holds NaN or an infinity.
        """
        for stage in reversed(self.stages[self.opened_up_to :]):
            update = stage.decode(update)
        difference = self.aggregated_spec(expected).difference(update.delta.spec) if expected is not None else None
        if difference:
            raise SpecMismatchError(
                f"round {update.round}: client `{update.client}`: its update {difference}",
                hint="the reply was dropped; this client usually runs another model version",
            )
        self._refuse_strangers(update, bare=bare)
        for admitting in self._admitting:
            update = admitting.admit(update)
        for name, vector in {"delta": update.delta, **update.extras}.items():
            if vector.vector.dtype != vector.spec.dtype:
                raise SpecMismatchError(
                    f"round {update.round}: client `{update.client}`: its {name} is laid out as {vector.spec.dtype}, "
                    f"and came as {vector.vector.dtype}"
                )
            if not vector.is_finite():
                raise NonFiniteUpdateError(
                    f"round {update.round}: client `{update.client}`: its {name} holds NaN or an infinity",
                    hint="the reply was dropped; a smaller learning rate, or max_grad_norm, usually helps",
                )
        if self.mechanism is not None and self.opened_up_to == self._clip + 1:
            # whatever the client did, and whatever decoding adds: what the noise hides is bounded here
            update = self._clipping.clipped(update)
        return update

    def _refuse_strangers(self, update: Update, *, bare: bool) -> None:
        """Refuse vectors that nobody asked for: the first client of a cohort would make all others bring them too."""
        told = {name for stage in self.stages[: self.opened_up_to] for name in getattr(stage, "beside", ())}
        for name in update.extras:
            if name not in told and (bare or name.startswith(SIDE)):
                raise EncodingError(
                    f"round {update.round}: client `{update.client}`: it brought `{name}`, which nobody asked for"
                )

    def weight(self, update: Update) -> float:
        """The update's weight in the mean.

        1 where nobody sees an update, and weights are in the whole numbers; and where what a client says of its weight
        counts for nothing.
        """
        alike = self.weighting != "examples" or self.hides_replies or getattr(self.aggregator, "unweighted", False)
        return 1.0 if alike else float(update.num_examples)

    def zero(self, spec: ParamSpec) -> Any:
        """The aggregator's accumulator of nothing, for updates of a model of this layout."""
        return self.aggregator.zero(self.aggregated_spec(spec))

    def accumulate(self, accumulator: Any, update: Update, *, factor: float = 1.0) -> Any:
        """Add one opened update, its weight multiplied with `factor`, in (0, 1]."""
        return self.aggregator.accumulate(accumulator, update, self.weight(update) * factor)

    def finish(
        self,
        accumulator: Any,
        *,
        rngs: Sequence[np.random.Generator] = (),
        spec: ParamSpec | None = None,
        extras: Mapping[str, ParamSpec] | None = None,
    ) -> Aggregate:
        """The aggregate: released, the additive stages finished right to left, and divided by its weight.

        Args:
          accumulator: Of all opened updates.
          rngs: One generator for each stage, and one more for the mechanism; by default from the operating system.
          spec: Layout of the shared model, which the delta then has.
          extras: Layouts of the vectors that the strategy has uploaded beside deltas: with a mechanism they are in the
            aggregate also where nobody brought any.
        """
        sources = rngs or [from_system() for _ in range(len(self.stages) + 1)]
        if isinstance(self.aggregator, CombinesSums):
            return self.aggregator.combined(
                [self._finished(each, sources, spec, extras) for each in self.aggregator.opened(accumulator)]
            )
        return self._finished(self.aggregator.finish(accumulator), sources, spec, extras)

    def _finished(
        self,
        aggregate: Aggregate,
        sources: Sequence[np.random.Generator],
        spec: ParamSpec | None,
        extras: Mapping[str, ParamSpec] | None,
    ) -> Aggregate:
        """A sum released, the additive stages finished on it, and divided by its weight."""
        if self.mechanism is not None:
            aggregate = _with_zeros(aggregate, extras or {})
        measured: dict[str, float] = dict(aggregate.measured)
        for i in reversed(range(self.opened_up_to)):
            if self.mechanism is not None and i == self._clip:
                aggregate = self.mechanism.release(_told_by_all(aggregate, self._clipping), self._clipping, sources[-1])
            aggregate = self.stages[i].finish(replace(aggregate, measured={}), sources[i])
            if aggregate.noise_stddev and not getattr(self.stages[i], "isometric", False):
                aggregate = replace(aggregate, noise_stddev=None)
            measured |= {f"{i}.{name}": value for name, value in aggregate.measured.items()}
        aggregate = replace(_divided(aggregate, spec), measured=measured)
        if self.mechanism is None:
            return aggregate
        # how many answered has no noise, and whatever is computed from an aggregate is handed out
        return replace(aggregate, num_clients=max(1, round(self._expected)), num_examples=0)

    # what stages are is asked once: of a `Protocol` that takes as long as a small update's arithmetic

    @cached_property
    def _remembering(self) -> frozenset[int]:
        return frozenset(i for i, stage in enumerate(self.stages) if isinstance(stage, Remembers))

    @cached_property
    def _admitting(self) -> tuple[Admits, ...]:
        return tuple(stage for stage in self.stages[: self.opened_up_to] if isinstance(stage, Admits))

    @property
    def _expected(self) -> float:
        return float(getattr(self.aggregator, "expected", None) or 1.0)

    @property
    def clipping(self) -> Clips | None:
        """The stage that bounds what one client can do to the sum; None where none does."""
        return self._clipping if any(isinstance(stage, Clips) for stage in self.stages) else None

    @property
    def _clip(self) -> int:
        """Position of the rightmost stage that clips; there is one wherever there is a mechanism."""
        return max(i for i, stage in enumerate(self.stages) if isinstance(stage, Clips))

    @property
    def _clipping(self) -> Clips:
        stage = self.stages[self._clip]
        assert isinstance(stage, Clips)
        return stage


def in_round(pipeline: Pipeline, phase: TrainPhase, seed: int) -> Pipeline:
    """The pipeline that does the work of the round of a phase, the same at the server and at its clients.

    Args:
      pipeline: The run's.
      phase: As the server sent it.
      seed: The job's.
    """
    given = PipelineRound(round=phase.round, seed=seed, cohort=phase.cohort, states=phase.stages)
    return pipeline.in_round(given, phase.broadcast.params.spec)


KEPT = "stage "
"""How the names begin under which clients keep vectors for stages."""


def _told_by_all(aggregate: Aggregate, clip: Clips) -> Aggregate:
    """The aggregate with a zero for what a clip tells and nobody told, so that nobody's silence shows."""
    return _with_zeros(aggregate, {name: flat_spec(name, 1, aggregate.delta.spec.dtype) for name in clip.tells})


def _with_zeros(aggregate: Aggregate, wanted: Mapping[str, ParamSpec]) -> Aggregate:
    """The aggregate with zeros for vectors that nobody brought."""
    dtype = aggregate.delta.spec.dtype
    missing = {name: spec for name, spec in wanted.items() if name not in aggregate.extras}
    zeros = {n: Params(replace(spec, dtype=dtype), np.zeros(spec.size, dtype)) for n, spec in missing.items()}
    return replace(aggregate, extras={**aggregate.extras, **zeros}) if zeros else aggregate


def _divided(aggregate: Aggregate, spec: ParamSpec | None) -> Aggregate:
    """The aggregate over its divisor, in the model's own type."""
    by = aggregate.divisor

    def over(vector: Params, dtype: str) -> Params:
        divided = vector.numpy() if by == 1.0 else vector.numpy() / by
        return Params(replace(vector.spec, dtype=dtype), divided.astype(dtype, copy=False))

    wanted = aggregate.delta.spec.dtype if spec is None else spec.dtype
    if by == 1.0 and aggregate.delta.spec.dtype == wanted:
        return aggregate
    return replace(
        aggregate,
        delta=over(aggregate.delta, wanted),
        extras={name: over(vector, wanted) for name, vector in aggregate.extras.items()},
        divisor=1.0,
        noise_stddev=aggregate.noise_stddev and aggregate.noise_stddev / by,
    )
