"""MNIST: handwritten digits, with their writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.idx import read_idx
from hanse.data.sets.folder import find_folder

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_WRITERS = ("qmnist-train-labels-idx2-int.gz", "qmnist-test-labels-idx2-int.gz")


def mnist(*, data_dir: Path | str | None = None, writers: bool | None = None) -> Dataset:
    """60,000 training and 10,000 test images of digits: x float32 `[n, 1, 28, 28]` in [0, 1], ten classes.

    Args:
      data_dir: Folder of data sets; it holds ``mnist/`` with the four IDX files, and for the
        writers ``mnist_writers_qmnist/``.
      writers: Whether to bring the group column ``writer`` (539 people wrote the training digits, 297
        others the test digits). None brings it where its files are there.

    Raises:
      DataNotFoundError: The files are not there.
      DataError: A file is damaged.

    References:
      LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".
      Yadav, Bottou 2019, "Cold case: the lost MNIST digits", arXiv:1905.10498 (the writers).
    """
    folder = find_folder("mnist", data_dir, _FILES)
    train, test = _examples(folder, *_FILES[:2]), _examples(folder, *_FILES[2:])
    wanted = (folder.parent / "mnist_writers_qmnist").is_dir() if writers is None else writers
    labels = _writers(data_dir, train, test) if wanted else None
    return Dataset(
        name="mnist",
        train=train,
        test=test,
        classes=tuple(str(digit) for digit in range(10)),
        groups={"writer": labels[0]} if labels else {},
        test_groups={"writer": labels[1]} if labels else {},
        description="handwritten digits, 28 x 28 grey values",
        source="LeCun, Cortes, Burges; writers from QMNIST (Yadav, Bottou); no licence stated",
    )


def _examples(folder: Path, images_file: str, labels_file: str) -> Examples:
    images, labels = read_idx(folder / images_file), read_idx(folder / labels_file)
    if images.ndim != 3 or labels.ndim != 1 or images.dtype != np.uint8:
        raise DataError(
            f"{folder / images_file}: images of shape {list(images.shape)}; wanted [n, height, width] of bytes"
        )
    x = np.empty((len(images), 1, *images.shape[1:]), dtype=np.float32)
    np.divide(images[:, None], np.float32(255), out=x, dtype=np.float32)
    return Examples(x, labels.astype(np.int64))


def _writers(data_dir: Path | str | None, train: Examples, test: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Writer of each row, from QMNIST's extended labels `[n, 8]`: class, series, writer, …"""
    folder = find_folder("mnist_writers_qmnist", data_dir, _WRITERS)
    found = []
    for file, examples in zip(_WRITERS, (train, test), strict=True):
        table = read_idx(folder / file)[: len(examples)]
        if table.ndim != 2 or table.shape[1] != 8 or not np.array_equal(table[:, 0], examples.y):
            raise DataError(f"{folder / file}: its classes are not those of the MNIST images in the same order")
        found.append(table[:, 2].astype(np.int64))
    return found[0], found[1]
