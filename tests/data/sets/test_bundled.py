"""The sets that come with scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hanse.core.errors import SettingError
from hanse.data.catalogue import SETS, load_set

pytest.importorskip("sklearn")


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("digits", (1797, 1, 8, 8), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
        ("breast_cancer", (569, 30), [212, 357]),
        ("wine", (178, 13), [59, 71, 48]),
    ],
)
def test_classes(name: str, shape: tuple[int, ...], counts: list[int]) -> None:
    data = load_set(name)
    assert data.name == name
    assert data.train.x.shape == shape
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == np.int64
    assert np.bincount(data.train.y).tolist() == counts
    assert data.num_classes == len(counts)
    assert data.test is None
    assert data.description
    assert data.source


def test_diabetes_is_a_number() -> None:
    data = load_set("diabetes")
    assert data.target == "number"
    assert data.train.x.shape == (442, 10)
    assert (data.train.y.min(), data.train.y.max()) == (25, 346)
    assert data.features[0] == "age"
    assert data.train.x[0, 0] == 59  # in years, not scaled


def test_digits_are_in_the_unit_range() -> None:
    x = load_set("digits").train.x
    assert (x.min(), x.max()) == (0, 1)


def test_unknown_names_and_settings_get_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean `digits`"):
        load_set("digit")
    with pytest.raises(SettingError, match="no settings"):
        load_set("digits", scale=2)
    with pytest.raises(SettingError, match="did you mean `data_dir`"):
        load_set("mnist", data_dirr="x")
    with pytest.raises(SettingError, match="needs this setting"):
        load_set("table")


def test_every_name_leads_to_a_function_and_listing_imports_nothing_heavy() -> None:
    import importlib

    for where in SETS.values():
        module, _, name = where.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
    heavy = "{'sklearn', 'torch', 'pandas', 'pyarrow', 'PIL'}"
    code = (
        "import sys, importlib\n"
        "from hanse.data.catalogue import SETS, PARTITIONERS\n"
        "for where in (*SETS.values(), *PARTITIONERS.values()): importlib.import_module(where.partition(':')[0])\n"
        f"assert not {heavy} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
