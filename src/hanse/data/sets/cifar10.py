"""CIFAR-10, as JPEG images."""

from __future__ import annotations

from pathlib import Path

from hanse.data.dataset import Dataset
from hanse.data.readers.encode import About
from hanse.data.readers.image_folder import read_image_folder
from hanse.data.sets.folder import find_folder

_FILE = "cifar10_jpg.tar.gz"


def cifar10(*, data_dir: Path | str | None = None) -> Dataset:
    """50,000 training and 10,000 test photographs of ten things: x float32 `[n, 3, 32, 32]` in [0, 1].

    The images went through JPEG at quality 75, so accuracies are a little below the published
    ones, which use the lossless images.

    Args:
      data_dir: Folder of data sets; it holds ``cifar10_jpeg/cifar10_jpg.tar.gz``.

    Raises:
      MissingExtraError: Pillow is not installed.
      DataNotFoundError: The archive is not there.

    References:
      Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    folder = find_folder("cifar10_jpeg", data_dir, (_FILE,))
    about = About(
        name="cifar10",
        description="small photographs of ten kinds of animals and vehicles, 32 x 32 pixels (JPEG)",
        source="Krizhevsky 2009; no licence stated",
    )
    return read_image_folder(folder / _FILE, about=about)
