"""One bit an element: its sign."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Stage
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import (
    as_scales,
    flat_spec,
    in_this_round,
    require_finite,
    require_layout,
    require_scales,
    side_vector,
    with_side,
    without_side,
)
from hanse.pipeline.feedback import with_feedback

_SCALE = "stage.sign.scale"


@dataclass(frozen=True, kw_only=True)
class Sign:
    """`x̂ = (‖x‖₁ / P) sign(x)`, where x has P elements; what that loses waits at the client for the next round.

    Zeros count as positive.

    Args:
      feedback: Whether clients keep what the signs lose; without, the direction is wrong on average.

    References:
      Karimireddy et al. 2019, arXiv:1901.09847, algorithm 1 (EF-SignSGD). Bernstein et al. 2018, arXiv:1802.04434.
    """

    feedback: bool = True
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    @property
    def additive(self) -> bool:
        """False: clients have scales of their own."""
        return False

    @property
    def beside(self) -> tuple[str, ...]:
        """The scale."""
        return (_SCALE,)

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
        """Bits."""
        return flat_spec("signs", -(-spec.size // 8), "uint8")

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half; raises `NonFiniteUpdateError`."""
        require_finite(update)
        vector = update.delta.numpy()
        scale = as_scales(update, np.abs(vector).mean(dtype=np.float64, keepdims=True) if len(vector) else np.zeros(1))
        packed = Params(self.encoded_spec(update.delta.spec), np.packbits(vector >= 0))
        return with_side(update, packed, sign_scale=scale)

    @property
    def remembers(self) -> bool:
        """As `feedback` says."""
        return self.feedback

    def encode_and_keep(
        self, update: Update, kept: Params | None, rng: np.random.Generator
    ) -> tuple[Update, Params | None]:
        """The client's half with what was lost before."""
        return with_feedback(self, update, kept, rng, keeps=self.feedback)

    def decode(self, update: Update) -> Update:
        """The server's half for one reply.

        Raises:
          EncodingError: The update is none of `encode`'s.
        """
        spec = in_this_round(self._given, self).spec
        packed = require_layout(update, self.encoded_spec(spec))
        scale = require_scales(update, side_vector(update, _SCALE, 1, "float32"))[0].astype(spec.dtype)
        positive = np.unpackbits(packed, count=spec.size).view(bool)
        return without_side(update, Params(spec, np.where(positive, scale, -scale)), _SCALE)

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """Never asked: it is not additive."""
        raise PipelineError("Sign is not additive: replies are decoded one by one")
