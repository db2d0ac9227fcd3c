"""The small real sets that come with scikit-learn; none has an official test set."""

from __future__ import annotations

from typing import Any

import numpy as np

from hanse.core.errors import MissingExtraError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples


def digits() -> Dataset:
    """1,797 handwritten digits: x float32 `[n, 1, 8, 8]` in [0, 1], ten classes.

    Raises:
      MissingExtraError: scikit-learn is not installed.
    """
    bunch = _load("load_digits", "data set `digits`")
    return Dataset(
        name="digits",
        train=Examples((bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)),
        classes=tuple(str(name) for name in bunch.target_names),
        description="handwritten digits, 8 x 8 grey values",
        source="Alpaydin, Kaynak 1998, UCI Machine Learning Repository; bundled with scikit-learn",
    )


def breast_cancer() -> Dataset:
    """569 tumours, 30 measurements of cell nuclei each: malignant (0) or benign (1).

    Raises:
      MissingExtraError: scikit-learn is not installed.
    """
    return _table(
        "breast_cancer", "Wolberg, Mangasarian, Street 1995 (Wisconsin, diagnostic)", "is a tumour malignant?"
    )


def wine() -> Dataset:
    """178 wines of three growers, 13 chemical measurements each.

    Raises:
      MissingExtraError: scikit-learn is not installed.
    """
    return _table("wine", "Aeberhard, Forina 1991", "which of three growers made a wine")


def diabetes() -> Dataset:
    """442 patients, 10 measurements in their own units each: disease progression after a year, a number.

    Raises:
      MissingExtraError: scikit-learn is not installed.
    """
    bunch = _load("load_diabetes", "data set `diabetes`", scaled=False)
    return Dataset(
        name="diabetes",
        train=Examples(bunch.data.astype(np.float32), bunch.target.astype(np.float32)),
        target="number",
        features=tuple(str(name) for name in bunch.feature_names),
        description="how far diabetes has gone a year after the measurements (a score from 25 to 346)",
        source="Efron, Hastie, Johnstone, Tibshirani 2004, Least Angle Regression; bundled with scikit-learn",
    )


def _table(name: str, source: str, description: str) -> Dataset:
    bunch = _load(f"load_{name}", f"data set `{name}`")
    return Dataset(
        name=name,
        train=Examples(bunch.data.astype(np.float32), bunch.target.astype(np.int64)),
        classes=tuple(str(label) for label in bunch.target_names),
        features=tuple(str(label) for label in bunch.feature_names),
        description=description,
        source=f"{source}, UCI Machine Learning Repository; bundled with scikit-learn",
    )


def _load(function: str, what: str, **settings: Any) -> Any:
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtraError(what, extra="sklearn") from None
    return getattr(datasets, function)(**settings)
