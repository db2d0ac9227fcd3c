"""`LeNet`: the classic small network for images."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from hanse.core.errors import TaskError
from hanse.data.schema import DataSchema
from hanse.tasks.models.base import AsImages, ImageShape, num_outputs


@dataclass(frozen=True, kw_only=True)
class LeNet:
    """Two 5×5 convolutions (6 and 16 channels) with 2×2 pooling, then 120, 84 and one unit a class.

    61,706 parameters on MNIST, 62,006 on 32×32 colour images. Images smaller than 32×32 are padded by two pixels on
    each side, as MNIST's were. Deviates from the paper as is usual today: ReLU and max pooling, every channel of the
    second convolution sees every one of the first, and a linear layer ends it.

    References:
      LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", LeNet-5.
    """

    def build(self, schema: DataSchema) -> nn.Module:
        """Layers `conv1`, `conv2`, `dense1`, `dense2`, `head`.

        Raises:
          TaskError: The inputs are no images, or smaller than 12×12.
        """
        image = ImageShape.of(schema, "LeNet")
        padding = 2 if min(image.height, image.width) < 32 else 0
        height, width = (((size + 2 * padding - 4) // 2 - 4) // 2 for size in (image.height, image.width))
        if min(height, width) < 1:
            raise TaskError(f"LeNet needs images of at least 12×12; got {image.height}×{image.width}")
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            images=AsImages(image, len(schema.input_shape)),
            conv1=nn.Conv2d(image.channels, 6, 5, padding=padding),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(6, 16, 5),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            dense1=nn.Linear(16 * height * width, 120),
            relu3=nn.ReLU(),
            dense2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            head=nn.Linear(84, num_outputs(schema)),
        )
        return nn.Sequential(layers)
