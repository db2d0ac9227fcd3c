"""Gaussian noise in bulk: a model's worth of it for each local step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hanse.core.randomness import derive_seed

_BLOCK = 65536  # pairs: what is computed of them stays in a core's cache


class NormalNoise:
    """Standard normal numbers from a key.

    In float32 by Box and Muller's transform of Philox's numbers, half the time that NumPy's own take: with whole
    numbers k in [0, 2³¹) and j in [−2³¹, 2³¹)

        r = √(−2 ln((k + ½) / 2³¹))        z = r cos(π j / 2³¹),  r sin(π j / 2³¹)

    so |z| ≤ 6.66, which normal numbers are beyond with probability 3e-11. In float64 by NumPy.

    Neither hides the gaps of floating-point numbers: see docs/trainers.md.

    Args:
      private_key: 128 bits; the same key gives the same numbers.

    References:
      Box, Muller 1958, "A note on the generation of random normal deviates".
    """

    def __init__(self, private_key: int) -> None:
        self._bits = np.random.Philox(key=derive_seed(private_key, "example noise", bits=128))
        self._wide = np.random.Generator(self._bits)
        self._angle = torch.empty(_BLOCK)

    def fill(self, out: Tensor) -> None:
        """Write into a contiguous vector on the CPU, `[P]` of float32 or float64."""
        if out.dtype == torch.float64:
            self._wide.standard_normal(out=out.numpy())
            return
        for block in torch.split(out, 2 * _BLOCK):
            pairs = (len(block) + 1) // 2
            whole = torch.from_numpy(self._bits.random_raw(pairs).view(np.int32))
            radius = whole[:pairs].bitwise_and_(0x7FFFFFFF).to(torch.float32)
            radius.add_(0.5).mul_(2.0**-31).log_().mul_(-2).sqrt_()
            angle = self._angle[:pairs].copy_(whole[pairs:]).mul_(math.pi * 2.0**-31)
            torch.cos(angle, out=block[:pairs]).mul_(radius)
            rest = len(block) - pairs
            torch.sin(angle[:rest], out=block[pairs:]).mul_(radius[:rest])
