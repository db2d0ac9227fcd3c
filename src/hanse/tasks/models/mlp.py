"""`MLP`: fully connected layers, for tables and for flattened images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hanse.core.errors import SettingError
from hanse.data.schema import DataSchema
from hanse.tasks.models.base import num_outputs

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


@dataclass(frozen=True, kw_only=True)
class MLP:
    """`x → activation(W₁ x + b₁) → … → W x + b`, each input flattened first (a view).

    Args:
      hidden: Widths of the hidden layers, each ≥ 1; empty for a linear model.
      dropout: Probability that a hidden unit is left out in training, in [0, 1).
      activation: After each hidden layer.
    """

    hidden: Sequence[int] = (32,)
    dropout: float = 0.0
    activation: Literal["relu", "tanh", "gelu"] = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a job file brings a list
        if any(width < 1 for width in self.hidden):
            raise SettingError("hidden", f"widths must be at least 1, got {list(self.hidden)}")
        if not 0 <= self.dropout < 1:
            raise SettingError("dropout", f"must be at least 0 and below 1, got {self.dropout}")
        if self.activation not in _ACTIVATIONS:
            raise SettingError("activation", f"got `{self.activation}`; known: {', '.join(sorted(_ACTIVATIONS))}")

    def build(self, schema: DataSchema) -> nn.Module:
        """Layers `hidden1`, `hidden2`, … and `head`."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if len(schema.input_shape) != 1:
            layers["flatten"] = nn.Flatten()
        width = schema.num_inputs
        for number, size in enumerate(self.hidden, start=1):
            layers[f"hidden{number}"] = nn.Linear(width, size)
            layers[f"{self.activation}{number}"] = _ACTIVATIONS[self.activation]()
            if self.dropout:
                layers[f"dropout{number}"] = nn.Dropout(self.dropout)
            width = size
        layers["head"] = nn.Linear(width, num_outputs(schema))
        return nn.Sequential(layers)
