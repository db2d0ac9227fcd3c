"""Plain steps, `w ← w − lr g` or that with a drift: the usual ones, so with as little as can be around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from hanse.core.corrections import is_steady
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.trainers.chain import Chain
from hanse.trainers.drift import Drift
from hanse.trainers.gradients import Backward, owned


def plain_steps(
    steps: Iterator[list[tuple[Tensor, Tensor]]],
    lr: float,
    drift: Drift | None,
    *,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    gradients: Backward,
    autocast: AbstractContextManager[object],
) -> tuple[int, float]:
    """Take plain steps; their number, and the mean loss over the examples seen.

    One fused call updates all tensors. It only reads the gradients, so they need no memory of their own.

    Args:
      steps: Batches of each step, one.
      lr: Learning rate.
      drift: What else a step adds, or None.
      loss_of: `(inputs, targets)` to the mean loss.
      parameters: Those that move.
      gradients: Takes theirs.
      autocast: What the forward pass is run in.
    """
    weights = [param.detach() for param in parameters]
    losses: list[Tensor] = []
    counts: list[int] = []
    for [(inputs, targets)] in steps:
        with autocast:
            loss = loss_of(inputs, targets)
        grads = gradients(loss)
        if any(grad is None or grad.layout is not torch.strided for grad in grads):
            grads = tuple(owned(grads, parameters))
        if drift is not None:
            if drift.keep != 1:
                torch._foreach_mul_(weights, drift.keep)
            torch._foreach_add_(weights, list(drift.pushes))
        torch._foreach_add_(weights, grads, alpha=-lr)  # type: ignore[arg-type]  # none is None now
        losses.append(loss.detach())
        counts.append(inputs.shape[0])
    return len(losses), weighted_mean(losses, counts)


def chain_steps(
    chain: Chain, steps: Iterable[list[tuple[Tensor, Tensor]]], lr: float, drift: Drift | None
) -> tuple[int, float]:
    """As `plain_steps`, without autograd."""
    losses: list[Tensor] = []
    counts: list[int] = []
    step = chain.step
    chain.drift(drift)
    try:
        with torch.no_grad():
            for [(inputs, targets)] in steps:
                losses.append(step(inputs, targets, lr))
                counts.append(inputs.shape[0])
    finally:
        chain.drift(None)
    return len(losses), weighted_mean(losses, counts)


def is_plain(work: LocalWork) -> bool:
    """Whether a step is `w ← w − lr g` for one batch's gradient g, or that with a drift, and nothing else."""
    rule = work.optimizer
    simple = type(rule) is SGD and not rule.momentum and not rule.weight_decay
    bare = work.max_grad_norm is None and work.example_privacy is None
    alone = work.objective is None and work.stepping is None and (work.correction is None or is_steady(work.correction))
    return simple and bare and alone and work.accumulate == 1 and work.perturbation is None


def weighted_mean(losses: Sequence[Tensor | float], counts: list[int]) -> float:
    """The mean loss over examples, of batches' means: tensors of one device, or numbers."""
    first = losses[0]
    if isinstance(first, Tensor) and first.device.type != "cpu":
        # one transfer for all of them from a GPU; on a CPU there is none
        values = torch.stack([torch.as_tensor(loss) for loss in losses]).tolist()
    else:
        values = [float(loss) for loss in losses]
    return math.fsum(n * loss for n, loss in zip(counts, values, strict=True)) / sum(counts)
