"""`Linear`: linear and logistic regression."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from hanse.data.schema import DataSchema
from hanse.tasks.models.base import num_outputs


@dataclass(frozen=True, kw_only=True)
class Linear:
    """`x → W x + b`, each input flattened first.

    Args:
      bias: Learn b.
      zeros: Start at zero, as befits a convex problem, instead of at PyTorch's random weights.
    """

    bias: bool = True
    zeros: bool = True

    def build(self, schema: DataSchema) -> nn.Module:
        """One layer, `head`."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if len(schema.input_shape) != 1:
            layers["flatten"] = nn.Flatten()
        head = nn.Linear(schema.num_inputs, num_outputs(schema), bias=self.bias)
        if self.zeros:
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        layers["head"] = head
        return nn.Sequential(layers)
