"""Gaussian noise in bulk: a model's worth of it for each local step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hanse.trainers.private.key_stream import BLOCKS, GROUP, key_of, noise_kernels, random_words

_PAIRS = GROUP // 2
_LOGARITHM = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_HALF_ROOT = 0x3F3504F3  # the bits of √½


class NormalNoise:
    """Standard normal numbers from a key.

    The words of ChaCha20's key stream (RFC 8439, with a counter of 64 bits and no nonce) by Box and Muller's transform:
    in float32, of words k in [0, 2³²) and j in [−2³¹, 2³¹),

        r = √(−2 ln((k + ½) / 2³²))        z = r cos(π j / 2³¹),  r sin(π j / 2³¹)

    so |z| ≤ 6.77, which normal numbers are beyond with probability 1.4e-11; small r are as fine as float32 is. In
    float64, of twice as long words, |z| ≤ 8.66.

    **Standing.** ChaCha20 is a cipher: who does not know the key and sees any number of its words can't, as far as is
    known, tell what others are. That is as good as the key: `private_key` has 128 bits, from which ChaCha20's 256 are
    derived by BLAKE2b. The gaps between floating-point numbers are not hidden: see docs/trainers.md.

    **Bits.** The float32 transform is made of operations that IEEE 754 rounds in one way only, so machine code and
    NumPy, and any two processors, give the same bits. Those of float64 hang on NumPy's logarithm, sine and cosine.

    Args:
      private_key: 128 bits; the same key gives the same numbers.

    References:
      Box, Muller 1958, "A note on the generation of random normal deviates"; Bernstein 2008, "ChaCha, a variant of
      Salsa20"; RFC 8439.
    """

    def __init__(self, private_key: int) -> None:
        self._key = key_of(private_key, "example noise")
        self._block = 0

    def fill(self, out: Tensor) -> None:
        """Write into a contiguous vector on the CPU, `[P]` of float32 or float64."""
        wide, numbers = out.dtype == torch.float64, out.numpy()
        groups = -(-len(out) * (2 if wide else 1) // GROUP)
        kernels = None if wide else noise_kernels()
        if kernels is not None:
            kernels.normal(self._key.ctypes.data, self._block, len(numbers), numbers.ctypes.data)
        else:
            done = 0
            for words in random_words(self._key, self._block, groups):
                found = (_wide_normal(words) if wide else _normal(words))[: len(numbers) - done]
                numbers[done : done + len(found)] = found
                done += len(found)
        self._block += groups * BLOCKS

    def add_to(self, totals: Sequence[Tensor], *, factor: float, deviation: float) -> None:
        """Turn numbers v into `factor v + deviation z`, where z is what `fill` writes for all tensors together.

        Numbers go by their place in a tensor, whatever its order in memory.

        Args:
          totals: Of one type, on any device.
          factor: What they are multiplied by.
          deviation: The standard deviation of what is added.
        """
        lengths = [total.numel() for total in totals]
        kernels = noise_kernels()
        if kernels is not None and all(t.dtype == torch.float32 and t.is_cpu and t.is_contiguous() for t in totals):
            about = np.array(lengths, np.int64), np.array([total.data_ptr() for total in totals], np.uint64)
            kernels.add(
                self._key.ctypes.data, self._block, len(totals), *(own.ctypes.data for own in about), factor, deviation
            )
            self._block += -(-sum(lengths) // GROUP) * BLOCKS
            return
        flat = torch.empty(sum(lengths), dtype=totals[0].dtype)
        self.fill(flat)
        flat.mul_(deviation)  # by itself, for `add_` may round a product and a sum as one
        for total, part in zip(totals, torch.split(flat, lengths), strict=True):
            total.mul_(factor).add_(part.view(total.shape).to(total))


def _normal(words: np.ndarray) -> np.ndarray:
    """As `normal` in native/normal_noise.cpp does it, operation by operation."""
    pairs = words.reshape(-1, 2, _PAIRS)
    r, j = _radius(pairs[:, 0]), pairs[:, 1]
    # quarters of a turn, and what is left, at most π/4
    quarters = (j + np.uint32(1 << 29)) >> np.uint32(30)
    t = (j - (quarters << np.uint32(30))).view(np.int32).astype(np.float32) * np.float32(1.46291807926715968e-9)
    z = t * t
    sine, cosine = np.float32(-1.9515295891e-4), np.float32(2.443315711809948e-5)
    s = ((sine * z + np.float32(8.3321608736e-3)) * z - np.float32(1.6666654611e-1)) * z * t + t
    c = ((cosine * z - np.float32(1.388731625493765e-3)) * z + np.float32(4.166664568298827e-2)) * z * z
    c = c - np.float32(0.5) * z + np.float32(1)
    odd = (quarters & np.uint32(1)) != 0
    across, up = np.where(odd, s, c), np.where(odd, c, s)
    np.negative(across, out=across, where=((quarters + np.uint32(1)) & np.uint32(2)) != 0)
    np.negative(up, out=up, where=(quarters & np.uint32(2)) != 0)
    return np.stack([r * across, r * up], 1).reshape(-1)


def _radius(k: np.ndarray) -> np.ndarray:
    """√(−2 ln((k + ½) / 2³²)): u = 2ᵉ (1 + f) with 1 + f in [√½, √2); near 1 it is 1 − u that has all digits."""
    u, v = ((w.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32) for w in (k, ~k))
    shifted = u.view(np.int32) - np.int32(_HALF_ROOT)
    e = shifted >> np.int32(23)
    f = ((shifted & np.int32(0x7FFFFF)) + np.int32(_HALF_ROOT)).view(np.float32) - np.float32(1)
    f = np.where(e != 0, f, -v)
    z, ef, y = f * f, e.astype(np.float32), np.full_like(f, _LOGARITHM[0])
    for factor in _LOGARITHM[1:]:
        y = y * f + np.float32(factor)
    y = y * f * z + ef * np.float32(-2.12194440e-4) - np.float32(0.5) * z
    found: np.ndarray = np.sqrt(np.float32(-2) * (f + y + ef * np.float32(0.693359375)))
    return found


def _wide_normal(words: np.ndarray) -> np.ndarray:
    pairs = words.reshape(-1, 2, _PAIRS).view(np.uint64)
    r = np.sqrt(-2 * np.log(((pairs[:, 0] >> np.uint64(11)) + 0.5) * 2.0**-53))
    angle = pairs[:, 1].view(np.int64) * (math.pi * 2.0**-63)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1).reshape(-1)
