"""`McMahanCNN`: the CNN of the first paper on federated averaging."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from hanse.core.errors import TaskError
from hanse.data.schema import DataSchema
from hanse.tasks.models.base import AsImages, ImageShape, num_outputs


@dataclass(frozen=True, kw_only=True)
class McMahanCNN:
    """Two 5×5 convolutions (32 and 64 channels, each with 2×2 max pooling), 512 units, a softmax layer.

    1,663,370 parameters on MNIST. Convolutions keep the image's size, which that number implies.

    References:
      McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, arXiv:1602.05629, section 3.
    """

    def build(self, schema: DataSchema) -> nn.Module:
        """Layers `conv1`, `conv2`, `dense`, `head`.

        Raises:
          TaskError: The inputs are no images, or smaller than 4×4.
        """
        image = ImageShape.of(schema, "McMahan's CNN")
        height, width = image.height // 4, image.width // 4
        if not height * width:
            raise TaskError(f"McMahan's CNN halves images twice; got {image.height}×{image.width}, too small for that")
        # max(relu(a), relu(b)) = relu(max(a, b)), gradients alike: pooling first leaves a quarter of the work
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            images=AsImages(image, len(schema.input_shape)),
            conv1=nn.Conv2d(image.channels, 32, 5, padding=2),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 5, padding=2),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            dense=nn.Linear(64 * height * width, 512),
            relu3=nn.ReLU(),
            head=nn.Linear(512, num_outputs(schema)),
        )
        return nn.Sequential(layers)
