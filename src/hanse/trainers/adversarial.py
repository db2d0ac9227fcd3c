"""Batches whose inputs are moved, just before their step, to where the loss at the current weights is larger.

The passes that find out where run in evaluation mode: no dropout, and batch norm by its running statistics, which stay
as they are. Papers do either; in evaluation mode models lose less on inputs that nobody moved (Pang et al. 2021,
arXiv:2010.00467, section 3.3), and nothing of a client's model but its steps changes. The parameters' gradients are not
taken there. The step itself is one of training, on the moved inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from hanse.core.adversarial import Perturbation
from hanse.core.errors import TaskError
from hanse.core.randomness import faster, stream
from hanse.trainers.device_data import Batches

Loss = Callable[[Tensor, Tensor], Tensor]


def refuse_unmovable(task: object, precision: str) -> None:
    """Refuse tasks whose inputs can't be moved, and types in which their gradients may vanish.

    Raises:
      TaskError: Inputs are whole numbers; or float16.
    """
    if getattr(task, "input_kind", "number") == "index":
        raise TaskError(
            f"a perturbation moves inputs a little, and those of the task `{getattr(task, 'name', task)}` are whole "
            "numbers such as tokens",
            hint="leave `adversarial` and `robust` out, or take a task whose inputs are numbers, such as images",
        )
    if precision == "float16":
        raise TaskError(
            "a perturbation goes by the sign of gradients, and in float16 small ones are 0",
            hint='use precision = "bfloat16" or "float32"',
        )


class Perturbs:
    """Moves inputs, by gradients of a module at the weights that are in it.

    Args:
      module: Left in evaluation mode; who trains it puts it back.
      loss: `(outputs, targets)` to the mean over examples.
      autocast: What the module runs in.
    """

    def __init__(self, module: nn.Module, loss: Loss, autocast: AbstractContextManager[object]) -> None:
        self._module = module
        self._loss = loss
        self._autocast = autocast
        # cuDNN's recurrent layers have no way back in evaluation mode
        self._recurrent = any(isinstance(layer, nn.RNNBase) for layer in module.modules())

    def __call__(self, perturbation: Perturbation, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        """The inputs, moved, in memory of their own.

        Args:
          perturbation: How.
          x: Inputs, `[n, …]`.
          y: Targets, `[n, …]`.
          rng: Draws random starts, on the CPU, so that all devices begin alike.

        Raises:
          TaskError: The inputs are whole numbers, or the loss does not depend on them.
        """
        if not x.is_floating_point():
            raise TaskError(f"a perturbation moves inputs a little, and these are whole numbers ({x.dtype})")

        def noise() -> Tensor:
            drawn = rng.random(tuple(x.shape), dtype=np.float32)
            return torch.from_numpy(drawn).to(x.device, x.dtype).mul_(2).sub_(1)

        self._module.eval()
        with torch.no_grad():
            moved: Tensor = perturbation.perturbed(x, lambda at: self._gradient(at, y), noise)
        return moved

    def _gradient(self, at: Tensor, y: Tensor) -> Tensor:
        inputs = at.detach().clone().requires_grad_()
        with ExitStack() as around:
            around.enter_context(torch.enable_grad())
            around.enter_context(self._autocast)
            if self._recurrent:
                around.enter_context(torch.backends.cudnn.flags(enabled=False))
            loss = self._loss(self._module(inputs.clone()), y)  # a layer may work in place on its inputs
        (found,) = torch.autograd.grad(loss, [inputs], allow_unused=True) if loss.requires_grad else (None,)
        if found is None:
            raise TaskError("a perturbation moves inputs, and the loss has no gradient with regard to them")
        return found


class PerturbedBatches:
    """Perturbs a client's batches, each when its step is due: the gradients are those at the weights of that moment.

    Args:
      module: That is trained, in training mode.
      loss: As for `Perturbs`.
      autocast: Likewise.
    """

    def __init__(self, module: nn.Module, loss: Loss, autocast: AbstractContextManager[object]) -> None:
        self._module = module
        self._perturbs = Perturbs(module, loss, autocast)

    def __call__(self, perturbation: Perturbation, steps: Iterable[Batches], seed: int) -> Iterator[Batches]:
        """The same batches, the share of each that the perturbation asks for moved.

        Args:
          perturbation: How.
          steps: Batches of each step.
          seed: The client's in this round.
        """
        rng = faster(stream(seed, "perturbation"))
        for batches in steps:
            try:
                moved = [(self._moved(perturbation, x, y, rng), y) for x, y in batches]
            finally:
                self._module.train()
            yield moved

    def _moved(self, perturbation: Perturbation, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        count = int(perturbation.share * len(x) + 0.5)
        if count == len(x):
            return self._perturbs(perturbation, x, y, rng)
        if not count:
            return x
        rows = torch.from_numpy(np.sort(rng.permutation(len(x))[:count])).to(x.device)
        found = self._perturbs(perturbation, x.index_select(0, rows), y.index_select(0, rows), rng)
        return x.index_copy(0, rows, found)
