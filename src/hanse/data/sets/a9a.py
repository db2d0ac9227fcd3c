"""a9a: the Adult census as 123 binary features, as LIBSVM distributes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.labels import class_indices
from hanse.data.readers.svmlight import read_svmlight
from hanse.data.sets.folder import find_folder

_NUM_FEATURES = 123


def a9a(*, data_dir: Path | str | None = None) -> Dataset:
    """32,561 training and 16,281 test rows, x float32 `[n, 123]` of 0 and 1; classes -1 and +1.

    Args:
      data_dir: Folder of data sets; it holds ``a9a/a9a`` and ``a9a/a9a.t``.

    Raises:
      DataNotFoundError: The files are not there.

    References:
      Platt 1998, "Fast training of support vector machines using sequential minimal optimization";
      Chang, Lin 2011, LIBSVM.
    """
    folder = find_folder("a9a", data_dir, ("a9a", "a9a.t"))
    x, labels = read_svmlight(folder / "a9a", num_features=_NUM_FEATURES)
    x_test, test_labels = read_svmlight(folder / "a9a.t", num_features=_NUM_FEATURES)
    y, classes = class_indices(np.concatenate([labels, test_labels]))
    return Dataset(
        name="a9a",
        train=Examples(x, y[: len(x)]),
        test=Examples(x_test, y[len(x) :]),
        classes=classes,
        features=tuple(f"f{i}" for i in range(1, _NUM_FEATURES + 1)),
        description="does somebody earn more than 50,000 dollars a year? (census of 1994, binary features)",
        source="LIBSVM data sets, from UCI Adult; no licence stated there",
    )
