"""Without `cryptography`, every module of the package says which extra to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["hanse.secagg", "hanse.secagg.terms", "hanse.secagg.key_agreement"])
def test_the_missing_package_is_named(module: str) -> None:
    code = f"""
import sys
sys.modules["cryptography"] = None
from hanse.core.errors import MissingExtraError
try:
    import {module}
except MissingExtraError as error:
    print(error.extra, error.hint)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split()[0] == "secagg"
    assert 'pip install "hanse[secagg]"' in ended.stdout
