"""Which software a run was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("hanse", "numpy", "torch", "scikit-learn", "safetensors", "sqlalchemy", "pydantic")


def versions() -> dict[str, str]:
    """Package to version, for what is installed; with Python's version and the platform."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
