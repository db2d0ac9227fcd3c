"""`PlainTask`: a task that trains by itself, without a framework of ours; what the plain trainer asks for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from hanse.core.errors import TaskError
from hanse.core.local_work import EVERYTHING, LocalWork
from hanse.core.messages import Sums
from hanse.core.params import Params
from hanse.core.protocols import Task


@runtime_checkable
class PlainTask(Task, Protocol):
    """A task that trains and evaluates by itself."""

    def train_plain(
        self, params: Params, x: np.ndarray, y: np.ndarray, work: LocalWork, seed: int
    ) -> tuple[Params, Sums, int]:
        """Train on a client's examples, at least one.

        Returns:
          The new parameters (those given stay as they are), additive training sums, and steps taken.
        """
        ...

    def evaluate_plain(self, params: Params, x: np.ndarray, y: np.ndarray) -> Sums:
        """Additive sums over the examples, of which there may be none (then `count` is 0)."""
        ...


def refuse_gradient_work(work: LocalWork, who: str) -> None:
    """Refuse local work that asks for gradients, which a task that trains by itself does not show.

    Raises:
      TaskError: Names the setting.
    """
    pieces = work.pieces
    asked = {
        "a gradient instead of a delta": work.upload != "delta",
        "a correction of each gradient": any(piece.correction is not None for piece in pieces),
        "a term of the loss on what the model finds in a batch": any(piece.objective is not None for piece in pieces),
        "inputs moved by gradients (`adversarial`)": any(piece.perturbation is not None for piece in pieces),
        "local steps of its own (`stepping`)": any(piece.stepping is not None for piece in pieces),
        "a bound on gradients (`max_grad_norm`)": any(piece.max_grad_norm is not None for piece in pieces),
        "gradients averaged over batches (`accumulate`)": any(piece.accumulate > 1 for piece in pieces),
        "steps that hide each example (`example_privacy`)": work.example_privacy is not None,
        "training of some tensors only (`trains`)": any(piece.trains != EVERYTHING for piece in pieces),
    }
    for thing, wanted in asked.items():
        if wanted:
            raise TaskError(
                f"the local work asks for {thing}; {who} trains by itself and shows no gradients",
                hint="use fedavg; fine_tuning or reptile for clients' own models; or a task with a PyTorch model",
            )
