"""The vectors that a gradient correction works with, whole and cut into one view per tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hanse.core.corrections import StepContext
from hanse.core.local_work import LocalWork
from hanse.core.params import Params, ParamSpec
from hanse.trainers.base import LocalJob
from hanse.trainers.lane import cut


@dataclass(frozen=True)
class CorrectionVectors:
    """One client's anchor, received and kept vectors in one round.

    Args:
      spec: Layout of the trainable weights.
      whole: The vectors `[P]`.
      by_tensor: Views of them, one context per tensor.
    """

    spec: ParamSpec
    whole: StepContext
    by_tensor: tuple[StepContext, ...]

    @staticmethod
    def of(work: LocalWork, job: LocalJob, spec: ParamSpec, anchor: Tensor) -> CorrectionVectors | None:
        """What `work.correction` asks for; None where there is no correction."""
        if work.correction is None:
            return None

        def vector(params: Params) -> Tensor:
            return torch.from_numpy(params.numpy().copy()).to(anchor.device)

        start = anchor[: spec.size]
        received = {name: vector(params) for name, params in job.received.items()}
        kept = {
            name: vector(job.kept[name]) if name in job.kept else torch.zeros_like(start)
            for name in work.correction.keeps
        }
        parts = {name: cut(spec, flat) for name, flat in {**received, **kept}.items()}
        by_tensor = tuple(
            StepContext(part, {n: parts[n][i] for n in received}, {n: parts[n][i] for n in kept})
            for i, part in enumerate(cut(spec, start))
        )
        return CorrectionVectors(spec, StepContext(start, received, kept), by_tensor)

    def correct(self, work: LocalWork, grads: list[Tensor], weights: list[Tensor]) -> None:
        """Change the gradients in place."""
        assert work.correction is not None
        for grad, weight, context in zip(grads, weights, self.by_tensor, strict=True):
            work.correction.correct(grad, weight, context)

    def finish(self, work: LocalWork, weights: Tensor, *, lr: float, num_steps: int) -> Mapping[str, Tensor]:
        """Let the correction update what is kept; returns what is uploaded."""
        assert work.correction is not None
        return work.correction.finish(weights, self.whole, lr=lr, num_steps=num_steps)

    def kept_params(self) -> dict[str, Params]:
        """What the client keeps."""
        return {name: Params(self.spec, value.cpu().numpy()) for name, value in self.whole.kept.items()}
