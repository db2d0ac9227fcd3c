"""`hanse new`: a small project that runs as it is."""

from __future__ import annotations


def new() -> None:
    """Start a project."""
