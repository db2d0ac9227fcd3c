"""Pipelines for common needs."""

from __future__ import annotations

from typing import Literal

from hanse.aggregators.secure_sum import SecureSum
from hanse.core.errors import SettingError
from hanse.core.protocols import Stage, Weighting
from hanse.pipeline.clip import Clip
from hanse.pipeline.local_noise import LocalGaussian, LocalLaplace
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.pipeline.sparsify import TopK


def plain(*, weighting: Weighting = "examples") -> Pipeline:
    """Updates as they are, and their mean.

    >>> plain(weighting="uniform").stages
    ()
    """
    return Pipeline(weighting=weighting)


def private(
    clip_norm: float, *, noise: Literal["server", "gaussian", "laplace"] = "server", adaptive: bool = False
) -> Pipeline:
    """Bounded updates of equal weight, for a run with `PrivacySettings`, which say how much noise there is.

    For noise at the server (`CentralGaussian`, `TreeNoise`, `BandedNoise`) the settings name the mechanism, and bring
    the sum it needs; for noise at the clients they name none.

    Args:
      clip_norm: Largest norm of one client's update, in the delta's unit, > 0: L2, or L1 for ``"laplace"``.
      noise: Where it is added: at the server, or at the clients, Gaussian or Laplace.
      adaptive: Whether the norm follows the median of the clients' norms, which `CentralGaussian` alone allows.

    Raises:
      SettingError: Noise at the clients, and a norm that adapts.

    >>> [type(stage).__name__ for stage in private(0.5, adaptive=True).stages]
    ['Clip']
    >>> [type(stage).__name__ for stage in private(0.5, noise="laplace").stages]
    ['LocalLaplace']
    """
    stage: Stage = Clip(norm=clip_norm, adaptive=adaptive)
    if noise != "server":
        if adaptive:
            raise SettingError("adaptive", "tells of clients' norms, and noise at the clients is there to tell nothing")
        stage = LocalGaussian(norm=clip_norm) if noise == "gaussian" else LocalLaplace(norm=clip_norm)
    return Pipeline(stages=(stage,), weighting="uniform")


def secure(clip_norm: float, *, bits: int = 20, threshold: float = 0.6) -> Pipeline:
    """Bounded updates of equal weight as whole numbers, and a secure sum of them: nobody sees a single one.

    With `DistributedNoise` among the run's `PrivacySettings` whole numbers are made by it: leave `Modular` out then.

    Args:
      clip_norm: Largest L2 norm of one client's update, in the delta's unit, > 0; no element is larger.
      bits: Whole numbers are modulo 2^bits, 2 to 32.
      threshold: Share of a cohort whose updates must be in the sum, in (0, 1].

    >>> [type(stage).__name__ for stage in secure(1.0).stages]
    ['Clip', 'Modular']
    """
    stages = (Clip(norm=clip_norm), Modular(bits=bits, range=clip_norm))
    return Pipeline(stages=stages, aggregator=SecureSum(threshold=threshold), weighting="uniform")


def compressed(
    bits: int = 8, *, share: float | None = None, broadcast_bits: int | None = None, weighting: Weighting = "examples"
) -> Pipeline:
    """Rotated and quantised updates, if wanted of the largest elements alone, and if wanted a quantised broadcast.

    Args:
      bits: Of each number that a client sends, 1 to 16.
      share: Of elements that clients send, in (0, 1]; the rest waits at the client. None sends all.
      broadcast_bits: Of each number of the model on its way to clients, 1 to 16; None sends it as it is.
      weighting: As the strategy's.

    >>> [type(stage).__name__ for stage in compressed(4, share=0.1, broadcast_bits=8).stages]
    ['TopK', 'Rotate', 'Quantize']
    """
    first: tuple[Stage, ...] = () if share is None else (TopK(share=share),)
    down: tuple[Stage, ...] = () if broadcast_bits is None else (Rotate(), Quantize(bits=broadcast_bits))
    return Pipeline(stages=(*first, Rotate(), Quantize(bits=bits)), weighting=weighting, broadcast=down)
