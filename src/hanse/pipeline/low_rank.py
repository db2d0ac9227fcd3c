"""Low-rank updates: each matrix as a product of two thin ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import NonFiniteUpdateError, PipelineError, SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec, TensorSpec
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import flat_spec, in_this_round, require_finite, require_layout
from hanse.pipeline.thin import multiply_out, orthonormal, product


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A tensor as rows and columns, and where it lies; `rows` is 0 where it travels as it is."""

    where: slice
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Each tensor of two axes or more, M as `[n, m]` with the first axis its rows, as `P Qᵀ` of rank r.

    One step of subspace iteration a round, from where the client's last one ended, on what was not sent yet too:

        M = Δ + e        P = orthonormal(M Q)        Q ← Mᵀ P        send P and Q        e ← M - P Qᵀ

    Tensors that would not get smaller travel as they are. Clients have bases of their own, so it is not additive: in
    PowerSGD all workers average M Q before it is made orthonormal, which takes a second exchange within a round.

    Args:
      rank: r ≥ 1.
      passes: Steps of subspace iteration a round, ≥ 1; several help where nothing is kept.
      feedback: Whether clients keep e and Q; without, a round starts from a Q that is drawn for all.

    References:
      Vogels, Karimireddy, Jaggi 2019, arXiv:1905.13727, algorithm 1 (compression) and 2 (error feedback), without the
      momentum and with each client alone. Konečný et al. 2016, arXiv:1610.05492, section 2 (low rank), which trains
      under the restriction instead.
    """

    rank: int = 4
    passes: int = 1
    feedback: bool = True
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("rank", self.rank), ("passes", self.passes)):
            if value < 1:
                raise SettingError(name, f"must be at least 1, got {value}")

    @property
    def additive(self) -> bool:
        """False: clients have bases of their own."""
        return False

    @property
    def for_changes(self) -> bool:
        """True: of a model itself it would leave too little to go on from."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """False."""
        return False

    def in_round(self, given: StageRound) -> Stage:
        """With the layout to decode to.

        Raises:
          PipelineError: The layout has no matrix that this rank makes smaller.
        """
        if not any(matrix.rows for matrix in self._matrices(given.spec)):
            raise PipelineError(
                f"stage `LowRank`: no tensor of this update is a matrix that rank {self.rank} makes smaller",
                hint="use a smaller rank, and put it left of stages that lay all tensors out as one",
            )
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """One flat tensor: for each tensor P and then Q, or the tensor."""
        size = sum(self._size(matrix) for matrix in self._matrices(spec))
        return flat_spec("factors", size, spec.dtype)

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        return self._encoded(update, self._drawn)[0]

    @property
    def remembers(self) -> bool:
        """As `feedback` says."""
        return self.feedback

    def encode_and_keep(
        self, update: Update, kept: Params | None, rng: np.random.Generator
    ) -> tuple[Update, Params | None]:
        """The client's half with what was not sent before, and from the bases of last time."""
        if not self.feedback:
            return self.encode(update, rng), None
        spec = update.delta.spec
        bases, layout = self._drawn, self._kept_spec(spec)
        if kept is not None and kept.spec == layout:  # else the model has changed, and it counts as nothing
            update = replace(update, delta=update.delta.with_vector(update.delta.numpy() + kept.numpy()[: spec.size]))
            bases = kept.numpy()[spec.size :]
        sent, bases = self._encoded(update, bases)
        lost = update.delta.numpy() - self.decode(sent).delta.numpy()
        return sent, Params(layout, np.concatenate([lost, bases]))

    def decode(self, update: Update) -> Update:
        """The server's half for one reply; raises `EncodingError`."""
        spec = in_this_round(self._given, self).spec
        factors = require_layout(update, self.encoded_spec(spec))
        vector = np.empty(spec.size, dtype=spec.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no number, and refused as such
            for matrix, part in self._parts(spec, factors):
                if not matrix.rows:
                    vector[matrix.where] = part
                    continue
                left = part[: matrix.rows * self.rank].reshape(matrix.rows, self.rank)
                right = part[matrix.rows * self.rank :].reshape(matrix.columns, self.rank)
                multiply_out(left, right, vector[matrix.where].reshape(matrix.rows, matrix.columns))
        return replace(update, delta=Params(spec, vector))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """Never asked: it is not additive."""
        raise PipelineError("LowRank is not additive: replies are decoded one by one")

    def _encoded(self, update: Update, bases: np.ndarray) -> tuple[Update, np.ndarray]:
        """The encoding, and the Q of all matrices to go on from."""
        spec = in_this_round(self._given, self).spec
        require_finite(update)
        vector, wanted = update.delta.numpy(), self.encoded_spec(spec)
        factors, found, at = np.empty(wanted.size, dtype=spec.dtype), np.empty_like(bases), 0
        for matrix, part in self._parts(spec, factors):
            if not matrix.rows:
                part[:] = vector[matrix.where]
                continue
            whole, own = vector[matrix.where].reshape(matrix.rows, matrix.columns), slice(at, at + self._q_size(matrix))
            left, right = self._factors(whole, bases[own].reshape(matrix.columns, self.rank))
            part[: left.size], part[left.size :] = left.reshape(-1), right.reshape(-1)
            # a direction that leads nowhere in this matrix may in the next
            drawn = self._drawn[own].reshape(right.shape)
            found[own] = np.where(right.any(axis=0), right, drawn).reshape(-1)
            at = own.stop
        if not np.isfinite(factors).all():
            raise NonFiniteUpdateError(
                f"round {update.round}: client `{update.client}`: its delta is too large to be factored; "
                "nothing was sent"
            )
        return replace(update, delta=Params(wanted, factors)), found

    def _factors(self, whole: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P `[n, r]` and Q `[m, r]`; a power of two takes the scale out on the way, and loses nothing."""
        largest = float(max(whole.max(initial=0), -whole.min(initial=0)))
        if not largest:
            return np.zeros((len(whole), self.rank), dtype=whole.dtype), np.zeros_like(basis)
        scale = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        even = whole / whole.dtype.type(scale)
        size = float(np.abs(basis).max(initial=0))
        right = basis / basis.dtype.type(size) if size else basis + basis.dtype.type(1)
        turned = np.ascontiguousarray(even.T)
        for _ in range(self.passes):
            left = orthonormal(product(even, right))
            right = product(turned, left)
        with np.errstate(over="ignore"):
            return left, right * whole.dtype.type(scale)

    def _parts(self, spec: ParamSpec, factors: np.ndarray) -> Iterator[tuple[_Matrix, np.ndarray]]:
        """Each tensor with its part of the encoding."""
        at = 0
        for matrix in self._matrices(spec):
            size = self._size(matrix)
            yield matrix, factors[at : at + size]
            at += size

    def _matrices(self, spec: ParamSpec) -> tuple[_Matrix, ...]:
        found = []
        for tensor in spec.tensors:
            rows = tensor.shape[0] if len(tensor.shape) > 1 else 0
            columns = tensor.size // rows if rows else 0
            smaller = self.rank <= min(rows, columns) and (rows + columns) * self.rank < tensor.size
            found.append(_Matrix(spec.slices[tensor.name], rows if smaller else 0, columns))
        return tuple(found)

    def _size(self, matrix: _Matrix) -> int:
        if matrix.rows:
            return self.rank * (matrix.rows + matrix.columns)
        return int(matrix.where.stop - matrix.where.start)

    def _q_size(self, matrix: _Matrix) -> int:
        return self.rank * matrix.columns if matrix.rows else 0

    def _kept_spec(self, spec: ParamSpec) -> ParamSpec:
        bases = sum(self._q_size(matrix) for matrix in self._matrices(spec))
        tensors = (TensorSpec("lost", (spec.size,), spec.dtype), TensorSpec("bases", (bases,), spec.dtype))
        return ParamSpec(tensors, spec.dtype)

    @cached_property
    def _drawn(self) -> np.ndarray:
        """Q of all matrices where nothing was kept, the same for all clients of a round."""
        given = in_this_round(self._given, self)
        size = sum(self._q_size(matrix) for matrix in self._matrices(given.spec))
        return stream(given.seed, "bases").normal(size=size).astype(given.spec.dtype)
