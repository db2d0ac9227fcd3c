"""Sparse updates: only the largest elements, or elements that server and clients draw alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import EncodingError, PipelineError, SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import (
    flat_spec,
    in_this_round,
    require_finite,
    require_layout,
    side_vector,
    with_side,
    without_side,
)
from hanse.pipeline.feedback import with_feedback

_PLACES = "stage.top.places"
_MAP_FROM = 1 / 32
"""Share of elements from which a bit for each element takes less than a number for each that is sent."""


@dataclass(frozen=True, kw_only=True)
class TopK:
    """The k elements of largest magnitude, and where they stand; the rest waits at the client for later rounds.

    With r what was not sent so far (with `feedback`; else 0):

        x = Δ + r        send the k largest |x_i|        r ← x - sent

    Places travel as a bit for each element, or as a number for each that is sent, whichever is shorter.

    Args:
      share: k over the number of elements, in (0, 1]; at least one element is sent.
      feedback: Whether clients keep what they did not send.

    References:
      Aji, Heafield 2017, arXiv:1704.05021. Stich et al. 2018, arXiv:1809.07599, algorithm 1 (memory).
    """

    share: float = 0.1
    feedback: bool = True
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def additive(self) -> bool:
        """False: each client sends other elements."""
        return False

    @property
    def beside(self) -> tuple[str, ...]:
        """The places."""
        return (_PLACES,)

    @property
    def for_changes(self) -> bool:
        """True: of a model itself it would leave too little to go on from."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """False."""
        return False

    def in_round(self, given: StageRound) -> Stage:
        """With the layout to decode to."""
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """The k elements."""
        return flat_spec("largest", _count(self.share, spec.size), spec.dtype)

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        require_finite(update)
        spec, vector = update.delta.spec, update.delta.numpy()
        count = _count(self.share, spec.size)
        places = largest(np.abs(vector), count)
        return with_side(
            update, Params(self.encoded_spec(spec), vector[places]), top_places=_written(places, spec.size)
        )

    @property
    def remembers(self) -> bool:
        """As `feedback` says."""
        return self.feedback

    def encode_and_keep(
        self, update: Update, kept: Params | None, rng: np.random.Generator
    ) -> tuple[Update, Params | None]:
        """The client's half with what was not sent before."""
        return with_feedback(self, update, kept, rng, keeps=self.feedback)

    def decode(self, update: Update) -> Update:
        """The server's half for one reply.

        Raises:
          EncodingError: The update is none of `encode`'s.
        """
        spec = in_this_round(self._given, self).spec
        values = require_layout(update, self.encoded_spec(spec))
        vector = np.zeros(spec.size, dtype=spec.dtype)
        vector[_read(update, len(values), spec.size)] = values
        return without_side(update, Params(spec, vector), _PLACES)

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """Never asked: it is not additive."""
        raise PipelineError("TopK is not additive: replies are decoded one by one")


@dataclass(frozen=True, kw_only=True)
class RandomK:
    """k elements that are drawn anew each round, at the server and the client alike, so none says where they stand.

    With `feedback` what was not sent waits at the client; without, what is sent is scaled by P / k, right on average.
    Drawn for each client apart (`own`) the errors of clients average out within a round, as each element comes from
    some of them; but then sums of what they send mean nothing.

    With `structured` clients train these elements alone, all others staying as they were broadcast, and send them as
    they are: nothing is lost, nor scaled. It then stands first.

    Args:
      share: k over the number of elements P, in (0, 1]; at least one element is sent.
      feedback: Whether clients keep what they did not send.
      own: Whether each client sends other elements, a random mask of its own.
      structured: Whether only these elements are trained.

    References:
      Konečný et al. 2016, arXiv:1610.05492, section 2 (structured: random mask) and 3 (sketched: subsampling),
      each with a mask of its own for each client and round, from a seed. Stich et al. 2018, arXiv:1809.07599 (memory).
    """

    share: float = 0.1
    feedback: bool = False
    own: bool = False
    structured: bool = False
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_share(self.share)
        if self.structured and self.feedback:
            raise SettingError("feedback", "has nothing to keep where only what is sent is trained")

    @property
    def additive(self) -> bool:
        """Whether all clients send the same elements."""
        return not self.own

    @property
    def redraws(self) -> bool:
        """True: an element of one round is none of the next."""
        return True

    @property
    def for_changes(self) -> bool:
        """True: of a model itself it would leave too little to go on from."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """False."""
        return False

    def in_round(self, given: StageRound) -> Stage:
        """With this round's elements."""
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """The k elements."""
        return flat_spec("drawn", _count(self.share, spec.size), spec.dtype)

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        given = in_this_round(self._given, self)
        require_finite(update)  # else one that is not sent would stay unseen, and be kept
        values = update.delta.numpy()[self._places(update.client)]
        if not self.feedback and not self.structured:
            with np.errstate(over="ignore"):  # what overflows is no number, and refused as such
                values *= np.asarray(given.spec.size / max(1, len(values)), dtype=values.dtype)
        return replace(update, delta=Params(self.encoded_spec(given.spec), values))

    @property
    def remembers(self) -> bool:
        """As `feedback` says."""
        return self.feedback

    def encode_and_keep(
        self, update: Update, kept: Params | None, rng: np.random.Generator
    ) -> tuple[Update, Params | None]:
        """The client's half with what was not sent before."""
        return with_feedback(self, update, kept, rng, keeps=self.feedback)

    def decode(self, update: Update) -> Update:
        """The server's half for one reply; raises `EncodingError`."""
        spec = in_this_round(self._given, self).spec
        values = require_layout(update, self.encoded_spec(spec))
        return replace(update, delta=self._spread(values, self._places(update.client)))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the aggregate."""
        if self.own:
            raise PipelineError("RandomK with `own` places is not additive: replies are decoded one by one")
        return replace(aggregate, delta=self._spread(aggregate.delta.numpy(), self._shared))

    @property
    def restricts(self) -> bool:
        """As `structured` says."""
        return self.structured

    def trained(self, client: str) -> np.ndarray:
        """The elements that this client will send."""
        found = np.zeros(in_this_round(self._given, self).spec.size, dtype=bool)
        found[self._places(client)] = True
        return found

    def _spread(self, values: np.ndarray, places: np.ndarray) -> Params:
        spec = replace(in_this_round(self._given, self).spec, dtype=values.dtype.name)
        vector = np.zeros(spec.size, dtype=values.dtype)
        vector[places] = values
        return Params(spec, vector)

    def _places(self, client: str) -> np.ndarray:
        return self._drawn(client) if self.own else self._shared

    @cached_property
    def _shared(self) -> np.ndarray:
        return self._drawn()

    def _drawn(self, *key: str) -> np.ndarray:
        given = in_this_round(self._given, self)
        count = _count(self.share, given.spec.size)
        drawn = stream(given.seed, "places", *key).choice(given.spec.size, size=count, replace=False, shuffle=False)
        return np.sort(drawn)


def largest(magnitudes: np.ndarray, count: int) -> np.ndarray:
    """Where the largest stand, in order; of those alike the first, so that it is the same on every machine."""
    if count == len(magnitudes):
        return np.arange(count)
    least = np.partition(magnitudes, len(magnitudes) - count)[len(magnitudes) - count]
    above = np.flatnonzero(magnitudes > least)
    return np.sort(np.concatenate([above, np.flatnonzero(magnitudes == least)[: count - len(above)]]))


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise SettingError("share", f"must be in (0, 1], got {share}")


def _count(share: float, size: int) -> int:
    return min(size, max(1, round(share * size)))


def _written(places: np.ndarray, size: int) -> np.ndarray:
    """Sorted places as bits or as numbers, whichever is shorter."""
    if len(places) < _MAP_FROM * size:
        return places.astype(np.uint32)
    marks = np.zeros(size, dtype=bool)
    marks[places] = True
    return np.packbits(marks)


def _read(update: Update, count: int, size: int) -> np.ndarray:
    where = f"round {update.round}: client `{update.client}`"
    if count < _MAP_FROM * size:
        places = side_vector(update, _PLACES, count, "uint32").astype(np.int64)
        if (np.diff(places) <= 0).any() or (count and places[-1] >= size):
            raise EncodingError(f"{where}: its places are not increasing numbers below {size:,}")
        return places
    marks = np.unpackbits(side_vector(update, _PLACES, -(-size // 8), "uint8"))
    found = np.flatnonzero(marks)
    if len(found) != count or (count and found[-1] >= size):
        raise EncodingError(f"{where}: it marks {len(found):,} places; wanted {count:,} below {size:,}")
    return found
