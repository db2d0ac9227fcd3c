"""`ResNet`: small residual networks for 32×32 images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hanse.core.errors import SettingError
from hanse.data.schema import DataSchema
from hanse.tasks.models.base import AsImages, ImageShape, num_outputs

_WIDTHS = (16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """Three stages of residual blocks with 16, 32 and 64 channels, the second and third at half the size each.

    On CIFAR-10: 75,290 parameters with depth 8, 269,722 with depth 20, beside the buffers of batch norm.

    Clients with unlike data have unlike batch statistics, whose average suits none of them; group norm keeps none
    (Hsieh et al. 2020).

    Args:
      depth: Layers with weights, 6 k + 2 for k blocks a stage: 8, 14, 20, ….
      norm: `"batch"` as in the paper, `"group"` for federations of unlike clients.
      groups: Groups of channels for group norm, a divisor of 16.

    References:
      He, Zhang, Ren, Sun 2016, arXiv:1512.03385, section 4.2 and table 6 (shortcuts without parameters, "option A").
      Hsieh, Phanishayee, Mutlu, Gibbons 2020, arXiv:1910.00189, section 5.
    """

    depth: int = 8
    norm: Literal["batch", "group"] = "batch"
    groups: int = 8

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise SettingError("depth", f"must be 6 k + 2 (8, 14, 20, …), got {self.depth}")
        if self.norm not in ("batch", "group"):
            raise SettingError("norm", f'must be "batch" or "group", got {self.norm!r}')
        if self.groups < 1 or _WIDTHS[0] % self.groups:
            raise SettingError("groups", f"must divide {_WIDTHS[0]}, got {self.groups}")

    def build(self, schema: DataSchema) -> nn.Module:
        """Layers `conv`, `norm`, `stages.0` to `stages.2`, `head`.

        Raises:
          TaskError: The inputs are no images.
        """
        images = AsImages(ImageShape.of(schema, "ResNet"), len(schema.input_shape))
        return ResNetNetwork(self, images, ImageShape.of(schema, "ResNet").channels, num_outputs(schema))

    def norm_layer(self, channels: int) -> nn.Module:
        """The normalisation for so many channels."""
        return nn.BatchNorm2d(channels) if self.norm == "batch" else nn.GroupNorm(self.groups, channels)


class ResNetNetwork(nn.Module):
    """Images to one number a class, `[n, C]`."""

    def __init__(self, settings: ResNet, images: nn.Module, channels: int, outputs: int) -> None:
        super().__init__()
        self.images = images
        self.conv = nn.Conv2d(channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.norm = settings.norm_layer(_WIDTHS[0])
        blocks = (settings.depth - 2) // 6
        before = (_WIDTHS[0], *_WIDTHS[:-1])
        self.stages = nn.Sequential(
            *(_stage(settings, narrow, wide, blocks) for narrow, wide in zip(before, _WIDTHS, strict=True))
        )
        self.head = nn.Linear(_WIDTHS[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        x = F.relu(self.norm(self.conv(self.images(x))))
        logits: Tensor = self.head(self.stages(x).mean((2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """`relu(x' + norm(conv(relu(norm(conv(x))))))`, with x' = x, halved and with zero channels added where needed."""

    def __init__(self, settings: ResNet, narrow: int, wide: int) -> None:
        super().__init__()
        self.stride = 1 if narrow == wide else 2
        self.added = (wide - narrow) // 2
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = settings.norm_layer(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = settings.norm_layer(wide)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return F.relu(x + residual)


def _stage(settings: ResNet, narrow: int, wide: int, blocks: int) -> nn.Sequential:
    first = ResidualBlock(settings, narrow, wide)
    return nn.Sequential(first, *(ResidualBlock(settings, wide, wide) for _ in range(blocks - 1)))
