"""`auto`: whether compiling pays for a run, from what the run is and from nothing else.

The same job must give the same bits in every process that runs a part of it, in every repetition, and after it was
killed and resumed. So the choice is a function of the model, the work and the number of steps: no clock is read, and
no cache is looked at. What steps and compilers cost was measured beforehand; docs/adr/0005 says how.
"""

from __future__ import annotations

from typing import Any, Literal

from hanse.core.local_work import EVERYTHING, LocalWork
from hanse.trainers.cpp_compiler import compiler

KERNEL_SECONDS = 4.0
"""Hanse's own kernels (`hanse.trainers.native_kernels`): 2 to 3 s were seen."""

COMPILE_SECONDS = 20.0
"""One graph, PyTorch's compiler imported and its headers precompiled: 9 to 36 s were seen."""

_SAVED_PER_LAYER = {True: 12e-6, False: 30e-6}
"""Seconds a step, for each layer of a chain (`hanse.trainers.chain`) and of any other model: the 2NN saves 70 us."""

_SAVED_PER_WEIGHT = 0.4e-9
"""Seconds a step by the kernels, for each weight of a dense layer: 0.4 ns in the 2NN, 0.7 ns in McMahan's CNN."""

_SAVED_PER_STACKED_LAYER = 9e-6
"""And beside that, for each layer of a stack whose steps are taken in one call: the 2NN saves 130 us in all."""

Use = Literal["standard", "compiled"]


def worth_compiling(task: Any, work: LocalWork, num_steps: float) -> tuple[Use, str]:
    """The trainer for a run, and why, in words.

    Args:
      task: What is learned.
      work: The local work of the first round.
      num_steps: Local steps of the whole run, of all clients.
    """
    if not (hasattr(task, "module") and hasattr(task, "tensors")):
        return "standard", "the task trains by itself"
    if compiler() is None:
        return "standard", "there is no C++ compiler on this machine"
    untouched = work.upload == "delta" and work.accumulate == 1 and work.trains == EVERYTHING
    if not untouched or work.example_privacy or work.objective or work.perturbation or work.stepping:
        return "standard", "such work is not compiled"
    from torch import nn

    from hanse.trainers.chain import Chain
    from hanse.trainers.dense_pass import dense_stack
    from hanse.trainers.lanes import has_lanes
    from hanse.trainers.plain_steps import is_plain

    if not has_lanes(work.optimizer):
        return "standard", "the optimiser is not one of Hanse's own"
    module = task.module()
    layers = [layer for layer in module.modules() if not list(layer.children())]
    chain = Chain.of(module, task.loss) is not None
    if chain and is_plain(work):
        saved = _SAVED_PER_WEIGHT * sum(layer.weight.numel() for layer in layers if type(layer) is nn.Linear)
        if dense_stack(module, task.loss) is not None:
            saved += _SAVED_PER_STACKED_LAYER * len(layers)
        return _weighed(saved * num_steps, KERNEL_SECONDS)
    if any(isinstance(layer, nn.modules.conv._ConvNd | nn.RNNBase) for layer in layers):
        return "standard", "convolutions and recurrent layers gain nothing from it"
    return _weighed(_SAVED_PER_LAYER[chain] * len(layers) * num_steps, COMPILE_SECONDS)


def _weighed(saved: float, cost: float) -> tuple[Use, str]:
    if saved < cost:
        return "standard", f"compiling takes about {cost:.0f} s and would save about {saved:.0f} s"
    return "compiled", f"it saves about {saved:.0f} s, and compiling takes {cost:.0f} s, once on a machine"
