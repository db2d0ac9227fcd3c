"""Units and filters that connect one layer to the next, found in a model's layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import PipelineError
from hanse.core.params import ParamSpec, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A dense or convolutional layer.

    Args:
      weight: `[out, in]`, or `[out, in, height, width]`.
      bias: `[out]`, or None.
      fan: Inputs that come of one unit of the layer before: places of a filter where a dense layer follows it, else 1.
    """

    weight: TensorSpec
    bias: TensorSpec | None
    fan: int

    @property
    def units(self) -> int:
        """Units, or filters."""
        return self.weight.shape[0]


def layers_of(spec: ParamSpec, *, stage: str) -> tuple[Layer, ...]:
    """The layers of a model in which each feeds the next, and nothing else.

    Args:
      spec: The model's layout.
      stage: Who asks, for messages.

    Raises:
      PipelineError: The tensors are not those of such a model.
    """

    def refused(tensor: TensorSpec, why: str) -> PipelineError:
        return PipelineError(
            f"stage `{stage}` leaves out units between layers that feed one another in a row, dense or convolutional "
            f"ones, and `{tensor.name}` {list(tensor.shape)} {why}",
            hint="use random_k with structured = true, which takes any model",
        )

    found: list[Layer] = []
    for tensor in spec.tensors:
        before = found[-1] if found else None
        if not tensor.trainable:
            raise refused(tensor, "is a buffer, as normalisation has them")
        if len(tensor.shape) == 1 and before is not None and before.bias is None and tensor.shape[0] == before.units:
            found[-1] = Layer(weight=before.weight, bias=tensor, fan=before.fan)
        elif len(tensor.shape) in (2, 4):
            fan = 1 if before is None else _fan(before, tensor)
            if not fan:
                raise refused(tensor, f"does not take the {before.units if before else 0} outputs of the layer before")
            found.append(Layer(weight=tensor, bias=None, fan=fan))
        else:
            raise refused(tensor, "is neither a layer's weights nor its bias")
    if len(found) < 2:
        raise PipelineError(
            f"stage `{stage}` leaves out units between layers, and this model has {len(found)} of them",
            hint="use random_k with structured = true, which takes any model",
        )
    return tuple(found)


def _fan(before: Layer, weight: TensorSpec) -> int:
    """Inputs of a layer for each unit before it; 0 where they do not fit."""
    inputs = weight.shape[1]
    flattened = len(before.weight.shape) == 4 and len(weight.shape) == 2
    if len(before.weight.shape) == 2 and len(weight.shape) == 4:
        return 0
    if not before.units or inputs % before.units or (inputs != before.units and not flattened):
        return 0
    return inputs // before.units


def kept_elements(layers: tuple[Layer, ...], spec: ParamSpec, units: tuple[np.ndarray, ...]) -> np.ndarray:
    """`[P]` of bool: elements of the model that has these units alone.

    Args:
      layers: All of them.
      spec: The model's layout.
      units: For each layer `[out]` of bool.
    """
    found = np.zeros(spec.size, dtype=bool)
    for i, layer in enumerate(layers):
        out, shape = units[i], layer.weight.shape
        incoming = np.ones(shape[1], dtype=bool) if i == 0 else np.repeat(units[i - 1], layer.fan)
        both = np.logical_and.outer(out, incoming).reshape(shape[:2] + (1,) * (len(shape) - 2))
        found[spec.slices[layer.weight.name]] = np.broadcast_to(both, shape).reshape(-1)
        if layer.bias is not None:
            found[spec.slices[layer.bias.name]] = out
    return found
