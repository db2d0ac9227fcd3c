"""What tests of the data layer share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    folder = os.environ.get("HANSE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HANSE_DATA names no folder of data sets")
    return Path(folder)
