"""Tiny Shakespeare: the next character of a role's lines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hanse.core.errors import DataError, SettingError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.sets.folder import find_folder

_ROLE = re.compile(r"([^\n:]+):\n")


def shakespeare(*, data_dir: Path | str | None = None, length: int = 80, stride: int | None = None) -> Dataset:
    """Windows of a role's text and the same moved on by one character; group column ``speaker``.

    x and y are int64 `[n, length]`: `y[:, t]` is the symbol that follows `x[:, t]`. The 65 symbols, sorted by
    code point, are the `classes`. All lines of a role are joined by line breaks, in order, and cut into windows of
    `length + 1` characters every `stride`; a role with fewer characters gives none. No official test set.

    Args:
      data_dir: Folder of data sets; it holds ``tinyshakespeare/input.txt``.
      length: Characters in a window, at least 1; McMahan et al. and LEAF have 80.
      stride: Characters between the starts of windows; None is `length`, so that every character is predicted once.

    Raises:
      SettingError: A setting is out of range.
      DataNotFoundError: The file is not there.

    References:
      McMahan et al. 2017, arXiv:1602.05629, section 3 (roles as clients); text from Karpathy's char-rnn.
    """
    step = length if stride is None else stride
    if length < 1 or step < 1:
        raise SettingError("data.length", f"got length = {length}, stride = {step}; wanted at least 1")
    path = find_folder("tinyshakespeare", data_dir, ("input.txt",)) / "input.txt"
    text = path.read_text(encoding="utf-8")
    symbols = sorted(set(text))
    windows, speakers = [], []
    for speaker, lines in _roles(text).items():
        codes = np.searchsorted(symbols, list(lines))
        if len(codes) > length:
            windows.append(np.lib.stride_tricks.sliding_window_view(codes, length + 1)[::step])
            speakers.append(np.repeat(speaker, len(windows[-1])))
    if not windows:
        raise DataError(f"{path}: no role has more than {length} characters", hint="a shorter `length`")
    codes = np.concatenate(windows).astype(np.int64)
    return Dataset(
        name="shakespeare",
        train=Examples(codes[:, :-1], codes[:, 1:]),
        target="next_token",
        classes=tuple(symbols),
        groups={"speaker": np.concatenate(speakers)},
        description="the next character in the lines of Shakespeare's roles",
        source="Karpathy, char-rnn; the plays are in the public domain",
    )


def _roles(text: str) -> dict[str, str]:
    """Role to all its lines, in the order in which roles first speak."""
    found: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        head = _ROLE.match(block)
        if head:
            found.setdefault(head[1], []).append(block[head.end() :])
    return {role: "\n".join(parts) for role, parts in found.items()}
