"""Dynamic loss scaling for float16 activations."""

from __future__ import annotations

import torch
from torch import Tensor


class LossScale:
    """Scales the loss up so that small gradients survive float16, and gradients back down.

    Halved when a gradient overflows (that step is skipped); doubled after `growth_interval` good steps. At a scale
    of 1 an overflow is the gradient's own, and is let through, so that it is seen.

    References:
      Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    """

    def __init__(self, *, initial: float = 2.0**16, growth_interval: int = 2000) -> None:
        self.value = initial
        self._interval = growth_interval
        self._good = 0

    def unscale(self, grads: list[Tensor]) -> bool:
        """Divide by the scale in place; False where a gradient is not finite and the step must be skipped."""
        torch._foreach_mul_(grads, 1 / self.value)
        if self.value > 1 and not all(bool(torch.isfinite(grad).all()) for grad in grads):
            self.value = max(self.value / 2, 1.0)
            self._good = 0
            return False
        self._good += 1
        if self._good >= self._interval:
            self.value, self._good = self.value * 2, 0
        return True
