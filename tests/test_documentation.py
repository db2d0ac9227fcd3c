"""What the documentation shows runs as it stands: a page's Python blocks, one after another, in an empty folder."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/federated-averaging.md",
    "docs/federation-identity.md",
    "docs/homomorphic-encryption.md",
    "docs/pipeline.md",
    "docs/privacy-accounting.md",
    "docs/reproducibility.md",
    "docs/secure-aggregation.md",
    "docs/sweeps.md",
)
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


def blocks(page: str, language: str) -> list[str]:
    found = BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    own = [match["code"] for match in found if match["language"] == language]
    return [code for code in own if not code.startswith("--8<--")]  # files that pages include have tests of their own


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python"])
    code = blocks(page, "python")
    assert code, f"{page} shows no Python"
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(code, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize(
    "page", sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
)
def test_toml_blocks_are_toml(page: str) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)


def local_links(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    return {target.split("#")[0] for target in targets if not target.startswith(("http", "#", "mailto:"))}


@pytest.mark.parametrize("page", sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("*.md")))
def test_links_of_the_front_pages_lead_somewhere(page: str) -> None:
    missing = {link for link in local_links(ROOT / page) if link and not (ROOT / link).exists()}
    assert not missing


def test_readme_shows_the_example_job_word_for_word() -> None:
    job = tomllib.loads((ROOT / "examples/hospitals/job.toml").read_text(encoding="utf-8"))
    assert any(tomllib.loads(block) == job for block in blocks("README.md", "toml"))
