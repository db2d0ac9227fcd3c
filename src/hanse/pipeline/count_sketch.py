"""Count sketch: a small table that adds up, from which the server reads the largest elements of the sum."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import flat_spec, in_this_round, require_finite, require_layout
from hanse.pipeline.sparsify import largest

_BLOCK = 1 << 15


@dataclass(frozen=True, kw_only=True)
class CountSketch:
    """A table of R rows and C columns; each row adds every element, by a random sign, to one random cell.

    With hashes h_r and signs s_r that server and clients draw alike, anew each round:

        S[r, h_r(i)] += s_r(i) x_i        x̂_i = median_r s_r(i) S[r, h_r(i)]        keep the k largest |x̂_i|

    Tables add up, so the server decodes once, on the sum, whose large elements stand out more than those of single
    updates do. That is what `additive` means here; the median and the choice of the largest are not linear, and
    decoding each reply would give another, worse sum.

    FetchSGD keeps momentum and what was not applied in tables at the server. A stage's state is a few numbers, so
    nothing is kept here: what a round leaves out is lost.

    Args:
      share: Cells of the table (R C) over the number of elements, in (0, 1].
      rows: R, odd, ≥ 1; more rows make large errors rarer, fewer make small ones smaller.
      keep: k over the number of elements, in (0, 1]; at least one.

    References:
      Charikar, Chen, Farach-Colton 2002, ICALP, section 3. Rothchild et al. 2020, arXiv:2007.07682, algorithm 1.
    """

    share: float = 0.1
    rows: int = 5
    keep: float = 0.01
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("keep", self.keep)):
            if not 0 < value <= 1:
                raise SettingError(name, f"must be in (0, 1], got {value}")
        if self.rows < 1 or self.rows % 2 == 0:
            raise SettingError("rows", f"must be odd and at least 1, got {self.rows}")

    @property
    def additive(self) -> bool:
        """True: the sum of tables is the table of the sum."""
        return True

    @property
    def redraws(self) -> bool:
        """True: a cell of one round is none of the next."""
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
        """With this round's hashes."""
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """The table, flat."""
        return flat_spec("table", self.rows * self._columns(spec), spec.dtype)

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        spec = in_this_round(self._given, self).spec
        require_finite(update)
        vector, columns = update.delta.numpy(), self._columns(spec)
        table = np.zeros((self.rows, columns))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no number, and refused as such
            for row, (cells, signs) in enumerate(self._hashes):
                table[row] = np.bincount(cells, weights=vector * signs, minlength=columns)
            flat = table.reshape(-1).astype(spec.dtype)
        return replace(update, delta=Params(self.encoded_spec(spec), flat))

    def decode(self, update: Update) -> Update:
        """The server's half for one reply; raises `EncodingError`."""
        spec = in_this_round(self._given, self).spec
        return replace(update, delta=self._read(require_layout(update, self.encoded_spec(spec))))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the aggregate."""
        return replace(aggregate, delta=self._read(aggregate.delta.numpy()))

    def _read(self, flat: np.ndarray) -> Params:
        spec = replace(in_this_round(self._given, self).spec, dtype=flat.dtype.name)
        table, guesses = flat.reshape(self.rows, -1), np.empty(spec.size, dtype=flat.dtype)
        for start in range(0, spec.size, _BLOCK):  # never R vectors of the model's size at once
            part = slice(start, start + _BLOCK)
            read = [table[row][cells[part]] * signs[part] for row, (cells, signs) in enumerate(self._hashes)]
            guesses[part] = np.partition(np.stack(read), self.rows // 2, axis=0)[self.rows // 2]
        places = largest(np.abs(guesses), min(spec.size, max(1, round(self.keep * spec.size))))
        vector = np.zeros_like(guesses)
        vector[places] = guesses[places]
        return Params(spec, vector)

    def _columns(self, spec: ParamSpec) -> int:
        return max(1, round(self.share * spec.size / self.rows))

    @cached_property
    def _hashes(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """For each row the cell of each element, and its sign: `[P]` of uint32 and of int8."""
        given = in_this_round(self._given, self)
        found = []
        for row in range(self.rows):
            source = stream(given.seed, "hashes", row)
            cells = source.integers(self._columns(given.spec), size=given.spec.size, dtype=np.uint32)
            signs = source.integers(2, size=given.spec.size, dtype=np.int8)
            signs *= 2
            signs -= 1
            found.append((cells, signs))
        return tuple(found)
