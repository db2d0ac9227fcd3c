"""Default of credit-card clients in Taiwan."""

from __future__ import annotations

from pathlib import Path

from hanse.data.dataset import Dataset
from hanse.data.readers.delimited import read_delimited
from hanse.data.readers.encode import About, Columns, dataset_from_table
from hanse.data.sets.folder import find_folder

_FILE = "UCI_Credit_Card.csv"


def default_credit(*, data_dir: Path | str | None = None) -> Dataset:
    """30,000 clients of a bank, 23 numbers each: does one default next month? (22 % do). No official test set.

    SEX, EDUCATION and MARRIAGE are codes and become 0/1 columns; EDUCATION is also a group column.

    Args:
      data_dir: Folder of data sets; it holds ``default_credit/UCI_Credit_Card.csv``.

    Raises:
      DataNotFoundError: The file is not there.

    References:
      Yeh, Lien 2009, Expert Systems with Applications 36(2), 2473-2480; UCI Machine Learning Repository.
    """
    folder = find_folder("default_credit", data_dir, (_FILE,))
    columns = Columns(
        target="default.payment.next.month",
        drop=("ID",),
        group=("EDUCATION",),
        keep_groups=True,
        categorical=("SEX", "EDUCATION", "MARRIAGE"),
    )
    about = About(
        name="default_credit",
        description="does a credit-card client default next month?",
        source="Yeh, Lien 2009, UCI Machine Learning Repository; copy of FATE (Apache-2.0)",
    )
    return dataset_from_table(read_delimited(folder / _FILE), columns, about=about)
