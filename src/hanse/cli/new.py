"""`hanse new`: a small project that runs as it is."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Annotated

import typer

_FILES = {"job.toml": "job.toml", "task.py": "task.py", "README.md": "README.md", "gitignore": ".gitignore"}
"""Template to the file that it becomes."""


def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to make.")],
) -> None:
    """Start a project: a job, a model of your own and a README, which run as they are."""
    folder = make_project(name)
    typer.echo(f"made {folder}: {', '.join(_FILES.values())}\n\nnext:\n  cd {folder}\n  hanse run job.toml")


def make_project(folder: Path) -> Path:
    """Write a project's files.

    Args:
      folder: Made if it is not there; must be empty.

    Raises:
      JobError: The folder holds something already, or has no name.
      StorageError: It can't be written.
    """
    from hanse.core.errors import JobError, StorageError

    title = folder.resolve().name
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise JobError(f"`{folder}` exists and is not empty", hint="choose another name; nothing was written")
        folder.mkdir(parents=True, exist_ok=True)
        for template, file in _FILES.items():
            (folder / file).write_text(_filled(template, title), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"`{folder}` can't be written: {error.strerror}", hint="choose another folder") from error
    return folder


def _filled(template: str, title: str) -> str:
    from importlib.resources import files
    from shlex import quote

    text = (files("hanse.cli") / "templates" / template).read_text(encoding="utf-8")
    if template == "task.py":
        return text
    return Template(text).substitute(name=json.dumps(title, ensure_ascii=False), title=title, run=quote(title))
