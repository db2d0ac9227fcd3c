"""A lane: one client's weights as one flat vector, in which a module lives.

The module's parameters and buffers are views of the vector, so loading a client and taking its delta are one pass
over memory each, and any `nn.Module` works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hanse.core.params import ParamSpec, TensorSpec


class Lane:
    """A module whose tensors are views of one vector `[P]`.

    Convolution weights lie in the vector with their channels last, which convolutions on a CPU are faster with;
    everything that goes in or out has the spec's own order.

    Args:
      module: Moved into the lane; on its final device already.
      spec: Layout of the vector.
    """

    def __init__(self, module: nn.Module, spec: ParamSpec) -> None:
        named = dict(module.named_parameters()) | dict(module.named_buffers())
        kind = getattr(torch, spec.dtype)
        device = next(iter(named.values())).device if named else torch.device("cpu")
        self.spec = spec
        self._vector = torch.zeros(spec.size, dtype=kind, device=device)
        self._permuted: list[tuple[TensorSpec, Tensor]] = []
        self._foreign: list[tuple[TensorSpec, Tensor]] = []  # of another type, for example counters
        for tensor in spec.tensors:
            inside = named[tensor.name]
            if inside.dtype != kind:
                self._foreign.append((tensor, inside.detach()))
                continue
            inside.data = self._place(tensor)
            if len(tensor.shape) == 4:
                self._permuted.append((tensor, inside.detach()))
        self.parameters = [named[tensor.name] for tensor in spec.tensors if tensor.trainable]
        self.weights = [parameter.detach() for parameter in self.parameters]

    @property
    def device(self) -> torch.device:
        """Where the vector lies."""
        return self._vector.device

    def load(self, flat: Tensor) -> None:
        """Take over a vector `[P]` in the spec's order."""
        self._vector.copy_(flat)
        for tensor, inside in (*self._permuted, *self._foreign):
            inside.copy_(flat[self.spec.slices[tensor.name]].view(tensor.shape))

    def minus(self, anchor: Tensor) -> Tensor:
        """The lane's vector minus `anchor`, both `[P]` in the spec's order; a new vector."""
        difference = self._vector - anchor
        for tensor, inside in (*self._permuted, *self._foreign):
            where = self.spec.slices[tensor.name]
            before = anchor[where].view(tensor.shape)
            torch.sub(inside, before, out=difference[where].view(tensor.shape))
        return difference

    def copy(self) -> Tensor:
        """The lane's vector `[P]` in the spec's order; a new vector."""
        vector = self._vector.clone()
        for tensor, inside in (*self._permuted, *self._foreign):
            vector[self.spec.slices[tensor.name]].view(tensor.shape).copy_(inside)
        return vector

    def _place(self, tensor: TensorSpec) -> Tensor:
        part = self._vector[self.spec.slices[tensor.name]]
        if len(tensor.shape) != 4:
            return part.view(tensor.shape)
        outer, inner, height, width = tensor.shape
        return part.view(outer, height, width, inner).permute(0, 3, 1, 2)


def cut(spec: ParamSpec, flat: Tensor) -> list[Tensor]:
    """One view per tensor of a vector in the spec's order."""
    return [flat[spec.slices[tensor.name]].view(tensor.shape) for tensor in spec.tensors]
