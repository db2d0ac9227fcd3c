"""`check_stage`: do the two halves of a stage fit together, and is what it claims true?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hanse.aggregators.mean import Mean
from hanse.aggregators.sum import Sum
from hanse.core.errors import NonFiniteUpdateError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import ChangesLayout, Randomises, SharesNoise, Stage
from hanse.core.randomness import stream
from hanse.pipeline.pipeline import Pipeline, PipelineRound
from hanse.testing.fakes import make_update
from hanse.testing.fingerprint import close, fingerprint, require


def check_stage(stage: Stage, *, updates: Sequence[Update] | None = None, tolerance: float = 1e-5) -> None:
    """Check a stage: purity, layout, `additive`, and what becomes of zeros, NaN and infinities.

    Where `additive` is claimed, a pipeline that finishes on the aggregate must agree with one that decodes each
    reply. NaN and infinities must be refused by `encode` (`NonFiniteUpdateError`) or still be there after decoding,
    where the pipeline refuses them; a stage may not turn them into numbers.

    Args:
      stage: The one to check.
      updates: Updates of one layout to try it on; by default five small ones.
      tolerance: Relative to the vectors' norm; for a stage that adds noise, some standard deviations of it.

    Raises:
      AssertionError: What does not hold, in a sentence.

    >>> from dataclasses import dataclass, replace
    >>> @dataclass(frozen=True)
    ... class Halve:
    ...     additive = True
    ...     needs_uniform_weights = False
    ...     def encode(self, update, rng):
    ...         return replace(update, delta=update.delta / 2)
    ...     def decode(self, update):
    ...         return replace(update, delta=2 * update.delta)
    ...     def finish(self, aggregate, rng):
    ...         return replace(aggregate, delta=2 * aggregate.delta)
    >>> check_stage(Halve())
    """
    name = type(stage).__name__
    for flag in ("additive", "needs_uniform_weights"):
        value = getattr(stage, flag, None)
        require(isinstance(value, bool), f"{name}.{flag} is {value!r}; wanted True or False")
    tried = list(updates) if updates is not None else _some_updates()
    stage = _in_round(stage, tried)
    for i, update in enumerate(tried):
        _check_halves(stage, update, i)
    _check_zero(stage, tried[0])
    _check_non_finite(stage, tried[0])
    _check_aggregation(stage, tried, tolerance)


def _some_updates() -> list[Update]:
    rng = np.random.default_rng(0)
    return [
        make_update(rng.normal(size=24), client=f"site-{i}", num_examples=3 + i, num_steps=2, round_number=4)
        for i in range(5)
    ]


def _in_round(stage: Stage, updates: Sequence[Update]) -> Stage:
    """The stage as it works in the round of these updates."""
    alone = _around(stage)
    states = alone.initial_states()
    given = PipelineRound(round=updates[0].round, seed=7, cohort=len(updates), states=states)
    return alone.in_round(given, updates[0].delta.spec).stages[0]


def _around(stage: Stage) -> Pipeline:
    """A pipeline of this stage alone, with what it demands."""
    return Pipeline(
        stages=(stage,),
        aggregator=Sum() if getattr(stage, "needs_sum", False) else Mean(),
        weighting="uniform" if stage.needs_uniform_weights else "examples",
    )


def _encode(stage: Stage, update: Update, key: int = 0) -> Update:
    return stage.encode(update, stream(7, "stage", key))


def _check_halves(stage: Stage, update: Update, key: int) -> None:
    name, before = type(stage).__name__, fingerprint(update)
    sent = _encode(stage, update, key)
    marks = fingerprint(sent)
    require(fingerprint(update) == before, f"{name}.encode changed its input; make a new update instead")
    require(
        fingerprint(_encode(stage, update, key)) == marks, f"{name}.encode draws randomness from elsewhere than `rng`"
    )
    private = isinstance(
        stage, Randomises | SharesNoise
    )  # tells nothing beside its noisy numbers, so every client has one example
    for label in ("client", "round") if private else ("client", "round", "num_examples"):
        require(getattr(sent, label) == getattr(update, label), f"{name}.encode changed the update's {label}")
    require(
        not private or (sent.num_examples, dict(sent.sums)) == (1, {}),
        f"{name}.encode adds noise to what a client tells, and leaves its examples or losses beside it as they are",
    )
    expected: ParamSpec | None = update.delta.spec
    if isinstance(stage, ChangesLayout):
        expected = stage.encoded_spec(update.delta.spec)
    difference = None if expected is None else expected.difference(sent.delta.spec)
    require(
        difference is None,
        f"{name}.encode gave a delta that {difference}; a stage that changes the layout says so in `encoded_spec`",
    )
    opened = stage.decode(sent)
    require(fingerprint(sent) == marks, f"{name}.decode changed its input; make a new update instead")
    difference = update.delta.spec.difference(opened.delta.spec)
    require(difference is None, f"{name}.decode gave a delta that {difference}")
    require(opened.delta.is_finite(), f"{name} made NaN or infinities of finite numbers")


def _check_zero(stage: Stage, update: Update) -> None:
    zero = replace(update, delta=update.delta.zeros_like())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = stage.decode(_encode(stage, zero))
    require(opened.delta.is_finite(), f"{type(stage).__name__} made NaN or infinities of an update of zeros")


def _check_non_finite(stage: Stage, update: Update) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        values = update.delta.numpy().copy()
        values[1] = bad
        try:
            with np.errstate(all="ignore"):
                opened = stage.decode(_encode(stage, replace(update, delta=update.delta.with_vector(values))))
        except NonFiniteUpdateError:
            continue
        require(
            not opened.delta.is_finite(),
            f"{type(stage).__name__} turned {bad} into numbers; refuse it with NonFiniteUpdateError",
        )


def _check_aggregation(stage: Stage, updates: list[Update], tolerance: float) -> None:
    """One by one and on the aggregate, by examples where that is allowed."""
    name = type(stage).__name__
    pipeline = _around(stage)
    spec = updates[0].delta.spec
    through, single = pipeline.zero(spec), Pipeline(weighting=pipeline.weighting)
    apart = single.zero(spec)
    for i, update in enumerate(updates):
        sent = _encode(stage, update, i)
        through = pipeline.accumulate(through, pipeline.open(sent, expected=spec))
        apart = single.accumulate(apart, stage.decode(sent))
    rngs = [stream(7, "finish", i) for i in range(2)]
    finished, wanted = pipeline.finish(through, rngs=rngs, spec=spec), single.finish(apart)
    difference = spec.difference(finished.delta.spec)
    require(difference is None, f"{name}.finish gave a delta that {difference}")
    claim = "claims to be additive, but finishing the sum" if stage.additive else "in a pipeline"
    require(
        close(finished.delta, wanted.delta, tolerance),
        f"{name} {claim} differs from decoding each update by {_gap(finished.delta, wanted.delta):.3g} of its norm",
    )
    counts = (finished.num_clients, finished.num_examples)
    require(counts == (wanted.num_clients, wanted.num_examples), f"{name}.finish changed the counts of the aggregate")


def _gap(left: Params, right: Params) -> float:
    return (left - right).l2_norm() / max(right.l2_norm(), 1e-30)
