"""`ModelReplacement`: a backdoored model, scaled so that it outweighs everybody else's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import multiple
from hanse.attacks.planted import Planted
from hanse.attacks.trigger import Corner
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class ModelReplacement(Planted):
    """Members train with a backdoor and send `boost` times their update: under a mean, it replaces the model.

    With n clients whose mean is added, others near convergence send next to nothing, so n times one update puts the
    attacker's model in place of the global one; m members share that out and send n / m times theirs. A server's
    learning rate η other than 1 asks for `boost` to be divided by it.

    Args:
      target: Class that inputs with the trigger are to be taken for.
      share: Of a member's examples, in [0, 1], how many get trigger and target.
      size: Pixels of the trigger's side, ≥ 1.
      value: What its pixels or features are set to, in the unit of the data, before inputs are prepared.
      corner: ``"top_left"``, ``"top_right"``, ``"bottom_left"`` or ``"bottom_right"`` of images.
      features: Positions in a flat input instead of pixels; tables need them.
      boost: γ > 0; None for n / m of the round.

    References:
      Bagdasaryan, Veit, Hua, Estrin, Shmatikov 2020, "How to backdoor federated learning", AISTATS, equation 3, with
      γ = n / η; algorithm 1 without its constraint against anomaly detectors.
    """

    target: int = 0
    share: float = 0.5
    size: int = 3
    value: float = 1.0
    corner: Corner = "bottom_right"
    features: tuple[int, ...] = ()
    boost: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boost is not None and not 0 < self.boost < math.inf:
            raise SettingError("boost", f"must be more than 0 and finite, got {self.boost}")

    @property
    def knows(self) -> Knowledge:
        """All members' updates: how many of them there are in the round."""
        return "members"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`."""
        boost = seen.num_clients / max(1, len(seen.members)) if self.boost is None else self.boost
        return [multiple(boost, own) for own in seen.own]
