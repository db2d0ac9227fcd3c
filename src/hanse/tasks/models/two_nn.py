"""`TwoNN`: the "2NN" of the first paper on federated averaging."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hanse.data.schema import DataSchema
from hanse.tasks.models.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class TwoNN:
    """Two hidden layers of 200 units with ReLU: 199,210 parameters on MNIST.

    References:
      McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, arXiv:1602.05629, section 3, "the MNIST 2NN".
    """

    def build(self, schema: DataSchema) -> nn.Module:
        """Layers `hidden1`, `hidden2`, `head`."""
        return MLP(hidden=(200, 200)).build(schema)
