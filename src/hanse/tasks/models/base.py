"""`ModelFactory`: a model's settings, and the sizes it takes from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from hanse.core.errors import TaskError
from hanse.data.schema import DataSchema


class ModelFactory(Protocol):
    """A model's settings. Should be a frozen dataclass, so that a task with it can be compared and pickled."""

    def build(self, schema: DataSchema) -> nn.Module:
        """A fresh module with PyTorch's default initialisation; its last layer is called `head`.

        Raises:
          TaskError: The model does not suit such data.
        """
        ...


def num_outputs(schema: DataSchema) -> int:
    """Numbers that a model of one answer an example gives: classes, or target numbers.

    Raises:
      TaskError: The targets are tokens, or classes of which there are none.
    """
    if schema.target == "next_token":
        raise TaskError(
            "this model gives one answer an example; the targets are a token for each position",
            hint="use a language model such as CharLSTM",
        )
    if schema.target == "number":
        count = 1
        for size in schema.target_shape:
            count *= size
        return count
    if schema.num_classes < 2:
        raise TaskError(f"the data names {schema.num_classes} classes; classification needs at least 2")
    return schema.num_classes


@dataclass(frozen=True)
class ImageShape:
    """Channels and size of one image, and where its channels stand."""

    channels: int
    height: int
    width: int
    channels_last: bool = False

    @staticmethod
    def of(schema: DataSchema, model: str) -> ImageShape:
        """From inputs `[H, W]`, `[C, H, W]` or `[H, W, C]` (C = 1, 3 or 4).

        Raises:
          TaskError: The inputs are no images.
        """
        shape = schema.input_shape
        if len(shape) == 2:
            return ImageShape(1, *shape)
        if len(shape) == 3:
            if shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
                return ImageShape(shape[2], shape[0], shape[1], channels_last=True)
            return ImageShape(*shape)
        raise TaskError(
            f"{model} needs images of shape [H, W], [C, H, W] or [H, W, C]; one input has shape {list(shape)}",
            hint="for tables use MLP or Linear",
        )


class AsImages(nn.Module):
    """Inputs `[n, H, W]`, `[n, C, H, W]` or `[n, H, W, C]` as a view `[n, C, H, W]`."""

    def __init__(self, shape: ImageShape, rank: int) -> None:
        super().__init__()
        self.add_channel = rank == 2
        self.channels_last = shape.channels_last

    def forward(self, x: Tensor) -> Tensor:
        """The view."""
        if self.add_channel:
            return x.unsqueeze(1)
        return x.permute(0, 3, 1, 2) if self.channels_last else x
