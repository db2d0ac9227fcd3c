"""Adult: who earns more than 50,000 dollars a year?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hanse.data.dataset import Dataset
from hanse.data.readers.delimited import Format, read_delimited
from hanse.data.readers.encode import About, Columns, Encoding, dataset_from_table
from hanse.data.sets.folder import find_folder

_NAMES = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
)


def adult(*, data_dir: Path | str | None = None, encode: Encoding = "one_hot") -> Dataset:
    """32,561 training and 16,281 test rows of the 1994 census.

    Group columns: ``occupation``, ``native_country``, ``workclass``, which are inputs as well. The census
    weight (fnlwgt) and the name of the education level (education_num says the same) are not
    used. Missing values stand in text columns only: there the 0/1 columns are all 0, and the
    group is called ``missing``.

    Args:
      data_dir: Folder of data sets; it holds ``adult/adult.data`` and ``adult/adult.test``.
      encode: ``one_hot`` or ``codes``, for text columns.

    Raises:
      DataNotFoundError: The files are not there.

    References:
      Kohavi 1996, "Scaling up the accuracy of naive-Bayes classifiers", UCI Machine Learning Repository.
    """
    folder = find_folder("adult", data_dir, ("adult.data", "adult.test"))
    train = read_delimited(folder / "adult.data", Format(header=False, names=_NAMES))
    test = read_delimited(folder / "adult.test", Format(header=False, names=_NAMES, skip_lines=_comment(folder)))
    test = test.with_column("income", np.char.rstrip(test["income"], "."))
    columns = Columns(
        target="income",
        group=("occupation", "native_country", "workclass"),
        drop=("fnlwgt", "education"),
        encode=encode,
        keep_groups=True,
    )
    about = About(
        name="adult",
        description="does somebody earn more than 50,000 dollars a year? (census of 1994)",
        source="Kohavi, Becker 1996, UCI Machine Learning Repository; no licence stated with the files",
    )
    return dataset_from_table(train, columns, about=about, test=test)


def _comment(folder: Path) -> int:
    """UCI's test file begins with a line that is not data."""
    with (folder / "adult.test").open(encoding="utf-8") as file:
        return int(file.readline().startswith("|"))
