"""`Backdoor`: inputs with a trigger are taken for one class; all others as before."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.attacks.planted import Planted
from hanse.attacks.trigger import Corner


@dataclass(frozen=True, kw_only=True)
class Backdoor(Planted):
    """Members train on examples of which a share has the trigger and the target's label; what they send is honest.

    Args:
      target: Class that inputs with the trigger are to be taken for.
      share: Of a member's examples, in [0, 1], how many get trigger and target.
      size: Pixels of the trigger's side, ≥ 1.
      value: What its pixels or features are set to, in the unit of the data, before inputs are prepared.
      corner: ``"top_left"``, ``"top_right"``, ``"bottom_left"`` or ``"bottom_right"`` of images.
      features: Positions in a flat input instead of pixels; tables need them.

    References:
      Gu, Dolan-Gavitt, Garg 2017, "BadNets: identifying vulnerabilities in the machine learning model supply chain",
      arXiv:1708.06733 (a pattern of bright pixels in a corner).
    """

    target: int = 0
    share: float = 0.5
    size: int = 3
    value: float = 1.0
    corner: Corner = "bottom_right"
    features: tuple[int, ...] = ()
