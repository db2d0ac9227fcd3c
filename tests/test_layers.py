"""Which folder may import which: the contracts of pyproject.toml, and who may lean on which package from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

CONFIG = Path(__file__).parents[1] / "pyproject.toml"

# What each folder may import from outside the standard library; imports inside functions count.
# A package that only one folder knows can be replaced by changing that folder.
OUTSIDE = {
    "hanse": set(),
    "hanse.__main__": set(),
    "hanse.aggregators": {"numpy"},
    "hanse.attacks": {"numpy"},
    "hanse.cli": {"click", "numpy", "rich", "typer"},
    "hanse.core": {"array_api_compat", "numpy"},
    "hanse.crypto": {"cryptography", "gmpy2", "numpy", "tenseal"},
    "hanse.data": {"numpy", "pandas", "PIL", "pyarrow", "sklearn"},
    "hanse.federation": {
        *("alembic", "cryptography", "fastapi", "fsspec", "httptools", "numpy", "psycopg", "pydantic", "safetensors"),
        *("sqlalchemy", "starlette", "tomli_w", "urllib3", "uvicorn", "zstandard"),
    },
    "hanse.jobs": {"numpy", "pydantic", "pydantic_core", "tomli_w"},
    "hanse.pipeline": {"numpy", "zstandard"},
    "hanse.plots": {"matplotlib", "numpy"},
    "hanse.privacy": {"dp_accounting", "numpy", "scipy"},
    "hanse.report": {"jinja2", "markupsafe", "numpy", "tomli_w"},
    "hanse.robustness": set(),
    "hanse.rounds": {"numpy", "safetensors", "sqlalchemy"},
    "hanse.secagg": {"cryptography", "numpy"},
    "hanse.simulation": {"numpy", "ray", "threadpoolctl"},
    "hanse.strategies": {"numpy"},
    "hanse.sweeps": {"numpy"},
    "hanse.tasks": {"numpy", "sklearn", "torch"},
    "hanse.trainers": {"numpy", "torch"},
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("hanse", include_external_packages=True, exclude_type_checking_imports=True)


def folder_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def outside_imports(graph: grimp.ImportGraph, folder: str) -> dict[str, str]:
    """Package → a module of the folder that imports it."""
    found = {}
    for module in graph.modules:
        if module.split(".")[0] != "hanse" or folder_of(module) != folder:
            continue
        for imported in graph.find_modules_directly_imported_by(module):
            package = imported.split(".")[0]
            if package != "hanse" and package not in sys.stdlib_module_names:
                found[package] = module
    return found


def test_contracts_are_kept() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--config", str(CONFIG)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout


def test_every_folder_is_named_in_the_table(graph: grimp.ImportGraph) -> None:
    folders = {folder_of(module) for module in graph.modules if module.startswith("hanse.")}
    assert folders - set(OUTSIDE) <= {"hanse.testing"}


@pytest.mark.parametrize("folder", sorted(OUTSIDE))
def test_folders_lean_on_few_packages(graph: grimp.ImportGraph, folder: str) -> None:
    extra = {
        package: module for package, module in outside_imports(graph, folder).items() if package not in OUTSIDE[folder]
    }
    assert not extra, f"{folder} should not import these packages (imported by): {extra}"
