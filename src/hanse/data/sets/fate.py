"""FATE's example data, split by rows between a guest and hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from hanse.core.errors import SettingError, did_you_mean
from hanse.data.dataset import Dataset
from hanse.data.readers.delimited import read_delimited
from hanse.data.readers.encode import About, Columns, dataset_from_table
from hanse.data.readers.table import Table
from hanse.data.sets.folder import find_folder

_PARTIES = {"breast": ("guest", "host"), "default_credit": ("guest", "host_1", "host_2")}


def fate(*, data_dir: Path | str | None = None, which: Literal["breast", "default_credit"] = "breast") -> Dataset:
    """Breast cancer (227 + 228 rows, 114 for testing) or credit default (3 x 8,000, 6,000); group column ``party``.

    The files were standardised over all rows, test rows included, before FATE split them; and the scores that
    FATE publishes are those of the training rows.

    Args:
      data_dir: Folder of data sets; it holds ``fate/``.
      which: ``breast`` or ``default_credit``.

    Raises:
      DataNotFoundError: The files are not there.
      SettingError: There is no such data.

    References:
      Liu, Fan, Chen, Xu, Yang 2021, "FATE", JMLR 22(226).
    """
    if which not in _PARTIES:
        raise SettingError("data.which", f"there is no `{which}`", hint=did_you_mean(which, _PARTIES))
    files = [f"{which}_homo_{party}.csv" for party in _PARTIES[which]]
    folder = find_folder("fate", data_dir, (*files, f"{which}_homo_test.csv"))
    tables = [read_delimited(folder / file) for file in files]
    parties = np.repeat([party.replace("_", "-") for party in _PARTIES[which]], [len(table) for table in tables])
    train = Table.concatenate(tables).with_column("party", parties)
    test = read_delimited(folder / f"{which}_homo_test.csv")
    test = test.with_column("party", np.repeat(["test"], len(test)))
    about = About(
        name="fate",
        description=f"{which.replace('_', ' ')}, as FATE splits it by rows (standardised)",
        source="FATE examples (Apache-2.0), from UCI",
    )
    return dataset_from_table(train, Columns(target="y", drop=("id",), group=("party",)), about=about, test=test)
