"""Structured low-rank updates: matrices that move within a subspace which both sides draw."""

from __future__ import annotations

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
from hanse.pipeline.encodings import in_this_round, require_finite, require_layout
from hanse.pipeline.restricted import is_factored
from hanse.pipeline.thin import multiply_out, orthonormal, product


@dataclass(frozen=True, kw_only=True)
class Subspace:
    """Each matrix changes by a product `B Aᵀ` of rank r, of which clients train and send B alone.

    A is drawn anew each round and known to both sides, B starts at zero. A is orthonormal, so a step of SGD on B is one
    on the matrix with its gradient G projected, which is how it is done:

        W ← W - η (G A) Aᵀ        B = (W - W₀) A

    A tensor of two axes or more is a matrix `[n, m]` with the first axis its rows; A is `[m, r]` and B `[n, r]`.
    Tensors that would not get smaller are trained and sent as they are. Gradients are clipped (`max_grad_norm`) before
    they are projected. It restricts the training itself, so it stands first.

    Args:
      rank: r ≥ 1.
      own: Whether each client has another A, as in the paper; then sums of what they send mean nothing.

    References:
      Konečný et al. 2016, arXiv:1610.05492, section 2 (low rank), whose matrices have inputs for rows, and A on them.
    """

    rank: int = 4
    own: bool = False
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SettingError("rank", f"must be at least 1, got {self.rank}")

    @property
    def additive(self) -> bool:
        """Whether all clients have the same A."""
        return not self.own

    @property
    def redraws(self) -> bool:
        """True: an element of one round is none of the next."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """False."""
        return False

    @property
    def restricts(self) -> bool:
        """True."""
        return True

    def trained(self, client: str) -> np.ndarray:
        """All elements may move, though not by themselves."""
        return np.ones(in_this_round(self._given, self).spec.size, dtype=bool)

    def in_round(self, given: StageRound) -> Stage:
        """With the round's seed.

        Raises:
          PipelineError: The layout has no matrix that this rank makes smaller.
        """
        if not any(self._is_matrix(tensor) for tensor in given.spec.tensors):
            raise PipelineError(
                f"stage `Subspace`: no tensor of this model is a matrix that rank {self.rank} makes smaller",
                hint="use a smaller rank",
            )
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """The same tensors, with B `[n, r]` in place of each matrix."""
        return ParamSpec(
            tuple(replace(t, shape=(t.shape[0], self.rank)) if self._is_matrix(t) else t for t in spec.tensors),
            spec.dtype,
        )

    def bases(self, client: str) -> np.ndarray:
        """Aᵀ in the first rows of each matrix."""
        spec = in_this_round(self._given, self).spec
        found = np.zeros(spec.size, dtype=spec.dtype)
        for tensor, basis in zip(self._matrices(spec), self._of(client), strict=True):
            found[spec.slices[tensor.name]][: basis.size] = basis.T.reshape(-1)
        return found

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        require_finite(update)
        spec = in_this_round(self._given, self).spec
        small, bases = self.encoded_spec(spec), iter(self._of(update.client))
        vector, found = update.delta.numpy(), np.empty(small.size, dtype=spec.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for tensor in spec.tensors:
                whole, part = vector[spec.slices[tensor.name]], found[small.slices[tensor.name]]
                if self._is_matrix(tensor):
                    part[:] = product(whole.reshape(tensor.shape[0], -1), next(bases)).reshape(-1)
                else:
                    part[:] = whole
        if not np.isfinite(found).all():
            raise NonFiniteUpdateError(
                f"round {update.round}: client `{update.client}`: its delta is too large to be factored; "
                "nothing was sent"
            )
        return replace(update, delta=Params(small, found))

    def decode(self, update: Update) -> Update:
        """The server's half for one reply; raises `EncodingError`."""
        require_layout(update, self.encoded_spec(in_this_round(self._given, self).spec))
        return replace(update, delta=self._multiplied(update.delta, self._of(update.client)))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the aggregate."""
        if self.own:
            raise PipelineError("Subspace with `own` bases is not additive: replies are decoded one by one")
        return replace(aggregate, delta=self._multiplied(aggregate.delta, self._shared))

    def _multiplied(self, part: Params, bases: tuple[np.ndarray, ...]) -> Params:
        vector = part.numpy()
        spec = replace(in_this_round(self._given, self).spec, dtype=vector.dtype.name)
        small, rest = self.encoded_spec(spec), iter(bases)
        found = np.empty(spec.size, dtype=vector.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no number, and refused as such
            for tensor in spec.tensors:
                whole, thin = found[spec.slices[tensor.name]], vector[small.slices[tensor.name]]
                if self._is_matrix(tensor):
                    left, right = thin.reshape(tensor.shape[0], self.rank), next(rest).astype(vector.dtype, copy=False)
                    multiply_out(left, right, whole.reshape(tensor.shape[0], -1))
                else:
                    whole[:] = thin
        return Params(spec, found)

    def _is_matrix(self, tensor: TensorSpec) -> bool:
        return tensor.trainable and is_factored(tensor.shape, self.rank)

    def _matrices(self, spec: ParamSpec) -> Iterator[TensorSpec]:
        return (tensor for tensor in spec.tensors if self._is_matrix(tensor))

    def _of(self, client: str) -> tuple[np.ndarray, ...]:
        return self._drawn(client) if self.own else self._shared

    @cached_property
    def _shared(self) -> tuple[np.ndarray, ...]:
        return self._drawn()

    def _drawn(self, *key: str) -> tuple[np.ndarray, ...]:
        """A `[m, r]` of each matrix."""
        given = in_this_round(self._given, self)
        rng, dtype = stream(given.seed, "subspace", *key), given.spec.dtype
        sizes = (tensor.size // tensor.shape[0] for tensor in self._matrices(given.spec))
        return tuple(orthonormal(rng.normal(size=(m, self.rank))).astype(dtype) for m in sizes)
