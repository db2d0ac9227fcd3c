from pathlib import Path

import pytest

from hanse.jobs.reference import MARKER, main, reference
from hanse.jobs.registry import GROUPS, NAMES

PAGE = Path(__file__).parents[2] / "docs" / "job-file.md"


def test_the_page_says_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(MARKER)[2].strip() == reference().strip(), f"run: python -m hanse.jobs.reference {PAGE.name}"


def test_the_page_names_everything_that_can_be_used() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for names in NAMES.values() for name in names)
    assert all(f"`{group}`" in text for group in GROUPS.values())


def test_writing_the_page_keeps_what_stands_above(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n\n{MARKER}\nold\n", encoding="utf-8")
    main(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Mine\n\n{MARKER}\n\n## The top level\n")
    assert "old\n" not in text.partition(MARKER)[2][:10]
    main(page)
    assert page.read_text(encoding="utf-8") == text
    page.write_text("no marker", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(page)
