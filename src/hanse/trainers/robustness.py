"""How well a model does on examples whose inputs are moved against it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from hanse.core.adversarial import Perturbation
from hanse.core.messages import Sums
from hanse.core.params import Params
from hanse.core.randomness import faster, stream
from hanse.data.examples import Examples
from hanse.trainers.adversarial import Perturbs, refuse_unmovable
from hanse.trainers.base import BLOCK
from hanse.trainers.device_data import DeviceData
from hanse.trainers.module_weights import ModuleWeights, module_on
from hanse.trainers.resident_task import ResidentTask
from hanse.trainers.torch_device import torch_device

_IMAGES = 50  # what convolutions make of these stays in a CPU's cache


class Robustness:
    """Measures models on perturbed examples, in a module of its own, in evaluation mode.

    Random starts are the same ones each time: a model's figures change with the model alone.

    Args:
      task: Makes the module, and measures outputs.
      perturbation: Moves all inputs, whatever its share.
      seed: Of the random starts.
      device: A torch device.
      precision: As for the resident trainer.
      cache_bytes: Bound on the examples that are kept on the device.

    Raises:
      TaskError: Inputs are whole numbers, or their gradients may vanish.
      JobError: The device is not there.
    """

    def __init__(
        self,
        task: ResidentTask,
        perturbation: Perturbation,
        *,
        seed: int,
        device: str = "cpu",
        precision: str = "float32",
        cache_bytes: int = 0,
    ) -> None:
        refuse_unmovable(task, precision)
        self._task = task
        self._perturbation = perturbation
        self._seed = seed
        self._device = torch_device(device)
        self._autocast: AbstractContextManager[object] = nullcontext()
        if precision not in ("float32", "tf32"):
            self._autocast = torch.autocast(self._device.type, dtype=getattr(torch, precision))
        self._module = module_on(task, self._device).eval()
        self._weights = ModuleWeights(self._module, task.spec, self._device)
        self._data = DeviceData(task, self._device, cache_bytes=cache_bytes, join_lone=False)
        self._perturbs = Perturbs(self._module, task.loss, self._autocast)
        convolves = any(parameter.dim() == 4 for parameter in self._weights.parameters)
        self._batch = _IMAGES if self._device.type == "cpu" and convolves else BLOCK

    def __call__(self, params: Params, examples: Callable[[], Examples]) -> Sums:
        """Additive metrics of the model on the examples, which are read once; each one is perturbed."""
        self._weights.load(params)
        rng = faster(stream(self._seed, "robust"))
        total: dict[str, float] = {}
        with self._data.tensors(("", "robust"), examples) as (x, y):
            for inputs, targets in zip(torch.split(x, self._batch), torch.split(y, self._batch), strict=True):
                moved = self._perturbs(self._perturbation, inputs, targets, rng)
                with torch.no_grad(), self._autocast:
                    measured = self._task.measure(self._module(moved), targets)
                for name, value in self._task.sums(measured).items():
                    total[name] = total.get(name, 0.0) + value
        return total or {"count": 0.0}
