"""AI4I 2020: will a milling machine fail? (predictive maintenance)"""

from __future__ import annotations

from pathlib import Path

from hanse.data.dataset import Dataset
from hanse.data.readers.delimited import read_delimited
from hanse.data.readers.encode import About, Columns, dataset_from_table
from hanse.data.sets.folder import find_folder

_FILE = "ai4i2020.csv"
_MODES = ("TWF", "HDF", "PWF", "OSF", "RNF")  # which kind of failure it was: known only afterwards


def ai4i(*, data_dir: Path | str | None = None) -> Dataset:
    """10,000 states of a (synthetic) machine, 339 of them failures; group column ``Type`` (product quality L, M, H).

    Inputs are two temperatures, speed, torque, tool wear and the product type. The columns that name the
    mode of a failure are left out: they would give the answer away. No official test set.

    Args:
      data_dir: Folder of data sets; it holds ``ai4i2020/ai4i2020.csv``.

    Raises:
      DataNotFoundError: The file is not there.

    References:
      Matzka 2020, "Explainable artificial intelligence for predictive maintenance applications".
    """
    folder = find_folder("ai4i2020", data_dir, (_FILE,))
    columns = Columns(target="Machine_failure", drop=("UDI", "Product ID", *_MODES), group=("Type",), keep_groups=True)
    about = About(
        name="ai4i",
        description="does a milling machine fail in this state? (synthetic, 3.4 % do)",
        source="Matzka 2020, UCI Machine Learning Repository; no licence stated with the file",
    )
    return dataset_from_table(read_delimited(folder / _FILE), columns, about=about)
