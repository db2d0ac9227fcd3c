"""`DistributedBackdoor`: each attacker plants a piece of the trigger, and all of it opens the door."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.attacks.boosted import Boosted
from hanse.attacks.planted import Planted
from hanse.attacks.trigger import Corner
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class DistributedBackdoor(Boosted, Planted):
    """Member i trains on examples with piece `i mod k` of the trigger alone; its success is measured with the whole.

    What each member does is further from a whole backdoor than a central attacker's is, and harder to find.

    Deviation from the paper: its pieces are four bars with gaps, by numbers of its own for each data set; here they are
    the rows, or runs of rows, of one square.

    Args:
      target: Class that inputs with the trigger are to be taken for.
      share: Of a member's examples, in [0, 1], how many get their piece and the target.
      size: Pixels of the whole trigger's side, ≥ 1.
      value: What its pixels or features are set to, in the unit of the data, before inputs are prepared.
      corner: ``"top_left"``, ``"top_right"``, ``"bottom_left"`` or ``"bottom_right"`` of images.
      features: Positions in a flat input instead of pixels; tables need them.
      pieces: k, ≥ 1; 4 in the paper. Fewer where there are fewer members or pixels, so that the whole is planted.
      boost: What a member's update is multiplied by, > 0; 1 for attacks in many rounds, and the paper's for one round
        is 100.

    References:
      Xie, Huang, Chen, Li 2020, "DBA: distributed backdoor attacks against federated learning", ICLR.
    """

    target: int = 0
    share: float = 0.5
    size: int = 4
    value: float = 1.0
    corner: Corner = "bottom_right"
    features: tuple[int, ...] = ()
    pieces: int = 4
    boost: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pieces < 1:
            raise SettingError("pieces", f"must be at least 1, got {self.pieces}")
        self.check_boost()

    def mask(self, shape: tuple[int, ...], *, member: int, num_members: int) -> np.ndarray:
        """The member's piece, as a mask of an input of that shape."""
        pieces = min(self.pieces, max(1, num_members), self.trigger.num_parts())
        return self.trigger.piece(shape, member % pieces, pieces)
