"""A randomised Hadamard rotation: spreads each update evenly over its elements, so that few bits do for each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import flat_spec, in_this_round, require_layout


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """`y = H D x`: signs D that server and clients draw alike, and a Hadamard matrix H with `H H = 1`.

    The vector is padded with zeros and rotated in blocks of at most `block` elements. A block takes every m-th element,
    m the number of blocks, so that each has its share of every layer, and its elements come to be about normal, of the
    same deviation in all blocks. Norms stay as they are, and it is linear: the server turns the aggregate back, once.

    Args:
      block: Largest number of elements that are rotated together, a power of two, 2 to 16,384.

    References:
      Suresh et al. 2017, arXiv:1611.00429, section 3 (stochastic rotated quantisation).
    """

    block: int = 1024
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (2 <= self.block <= 16384 and self.block & (self.block - 1) == 0):
            raise SettingError("block", f"must be a power of two from 2 to 16384, got {self.block}")

    @property
    def additive(self) -> bool:
        """True: it is linear."""
        return True

    @property
    def redraws(self) -> bool:
        """True: an element of one round is none of the next."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """False."""
        return False

    @property
    def isometric(self) -> bool:
        """True: noise that is the same in all directions stays so."""
        return True

    def block_of(self, size: int) -> int:
        """How many elements of a vector of `size` are rotated together."""
        return _split(size, self.block)[0]

    def in_round(self, given: StageRound) -> Stage:
        """With this round's signs."""
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """One flat tensor, padded."""
        side, blocks = _split(spec.size, self.block)
        return flat_spec("rotated", side * blocks, spec.dtype)

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half: `H D x`."""
        given = in_this_round(self._given, self)
        size, blocks = _split(given.spec.size, self.block)
        vector = update.delta.numpy()
        padded = np.empty(size * blocks, dtype=vector.dtype)
        np.multiply(vector, self._signs, out=padded[: len(vector)])
        padded[len(vector) :] = 0
        return replace(update, delta=Params(self.encoded_spec(given.spec), _rotated(padded, size, blocks, own=True)))

    def decode(self, update: Update) -> Update:
        """`D H y` for one reply."""
        given = in_this_round(self._given, self)
        vector = require_layout(update, self.encoded_spec(given.spec))
        return replace(update, delta=Params(given.spec, self._back(vector)))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """`D H y` for the aggregate."""
        given = in_this_round(self._given, self)
        back = self._back(aggregate.delta.numpy())
        return replace(aggregate, delta=Params(replace(given.spec, dtype=back.dtype.name), back))

    def _back(self, vector: np.ndarray) -> np.ndarray:
        given = in_this_round(self._given, self)
        size, blocks = _split(given.spec.size, self.block)
        turned = _rotated(vector, size, blocks, own=False)[: given.spec.size]
        turned *= self._signs
        return turned

    @cached_property
    def _signs(self) -> np.ndarray:
        """D's diagonal: `[P]` of ±1 in float32."""
        given = in_this_round(self._given, self)
        drawn = np.frombuffer(stream(given.seed, "signs").bytes(-(-given.spec.size // 8)), dtype=np.uint8)
        signs = np.unpackbits(drawn, count=given.spec.size).astype(np.float32)
        signs *= 2
        signs -= 1
        return signs


def _split(size: int, most: int) -> tuple[int, int]:
    """Elements of a block and number of blocks: the largest blocks that pad by at most an eighth."""
    block = 1 << max(1, (max(size, 2) - 1).bit_length())
    block = min(block, most)
    while block > 64 and -(-size // block) * block - size > size // 8:
        block //= 2
    return block, max(1, -(-size // block))


_COLUMNS = 1 << 10
"""Of a product at a time: so few that one thread takes it, as several round in another way on some processors."""


def _rotated(vector: np.ndarray, size: int, blocks: int, *, own: bool) -> np.ndarray:
    """H x for each of the blocks, of which block j holds the elements j, j + m, j + 2 m, …

    A Hadamard matrix of order a b is the Kronecker product of those of a and b, so products of small matrices do, each
    along one axis of a block that is seen as a tensor. Orders of 8 and 16 cost the least: smaller ones wait for memory,
    larger ones compute.

    Args:
      vector: `[size * blocks]`.
      size: Elements of a block, a power of two.
      blocks: m.
      own: Whether it may be overwritten.
    """
    outer, here = 1, vector
    buffers = [np.empty_like(vector), vector if own else np.empty_like(vector)]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no number, and refused as such
        for i, order in enumerate(_orders(size)):
            shape = (outer, order, size * blocks // (outer * order))
            there = buffers[i % 2]
            matrix, given, turned = _hadamard(order, vector.dtype.name), here.reshape(shape), there.reshape(shape)
            for start in range(0, shape[2], _COLUMNS):
                part = slice(start, start + _COLUMNS)
                np.matmul(matrix, given[:, :, part], out=turned[:, :, part])
            here, outer = there, outer * order
    return here


@lru_cache(maxsize=32)
def _orders(size: int) -> tuple[int, ...]:
    """Powers of two of at most 16 whose product is `size`, about alike, the largest first: there rows are longest.

    >>> _orders(1024)
    (16, 8, 8)
    """
    bits = size.bit_length() - 1
    count = -(-bits // 4)
    return tuple(1 << (bits + i) // count for i in reversed(range(count)))


@lru_cache(maxsize=32)
def _hadamard(order: int, dtype: str) -> np.ndarray:
    """Sylvester's matrix of this order over its square root: symmetric, and its own inverse."""
    matrix = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix /= np.sqrt(order)
    return matrix.astype(dtype)
