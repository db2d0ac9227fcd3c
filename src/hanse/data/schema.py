"""`DataSchema`: what a model must know of the data before it is built, and nothing about its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanse.core.errors import EmptyClientError
from hanse.data.dataset import TargetKind
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset


@dataclass(frozen=True, kw_only=True)
class DataSchema:
    """Shape and kind of the inputs and targets.

    Args:
      input_shape: Shape of one input, without the batch axis.
      target: What the targets are.
      target_shape: Shape of one target; empty for a single class or number.
      classes: Names of the classes; for tokens, the symbols; empty for numbers.
      features: Names of input columns; empty for images and text.
    """

    input_shape: tuple[int, ...]
    target: TargetKind
    target_shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes or symbols; 0 where the target is a number."""
        return len(self.classes)

    @property
    def num_inputs(self) -> int:
        """Numbers in one input."""
        return int(np.prod(self.input_shape)) if self.input_shape else 1

    @staticmethod
    def of(federated: FederatedDataset) -> DataSchema:
        """From a federated data set: its description where there is one, else its first examples.

        Data that came as bare arrays is read once, client by client, to see how many classes there are.

        Raises:
          EmptyClientError: No client holds an example.
        """
        known = federated.dataset
        if known is not None:
            return _schema(known.train, known.target, known.classes, known.features)
        first, top = None, -1
        for client in federated.clients:
            data = federated.client(client)
            for part in (data.train, data.validation, data.test):
                if len(part) and part.y.dtype.kind in "iub":
                    top = max(top, int(part.y.max()))
            if first is None and len(data.train):
                first = data.train
                if first.y.dtype.kind == "f":
                    return _schema(first, "number", (), ())
        if first is None:
            raise EmptyClientError("no client of this federation holds a training example")
        return _schema(first, "classes", tuple(str(i) for i in range(top + 1)), ())


def _schema(examples: Examples, target: TargetKind, classes: tuple[str, ...], features: tuple[str, ...]) -> DataSchema:
    return DataSchema(
        input_shape=tuple(examples.x.shape[1:]),
        target=target,
        target_shape=tuple(examples.y.shape[1:]),
        classes=classes,
        features=features,
    )
