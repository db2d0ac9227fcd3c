"""C-MAPSS: how many flights has a turbofan engine left? (NASA, simulated)"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from hanse.core.errors import DataError, SettingError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.delimited import Format, read_delimited
from hanse.data.sets.folder import find_folder

_NAMES = ("unit", "cycle", "setting_1", "setting_2", "setting_3", *(f"sensor_{i}" for i in range(1, 22)))


def cmapss(
    *,
    data_dir: Path | str | None = None,
    subset: Literal["FD001", "FD003"] = "FD001",
    window: int = 1,
    stride: int = 1,
    cap: int | None = 125,
) -> Dataset:
    """Remaining useful life of engines, in cycles, from 3 settings and 21 sensors; group column ``engine``.

    With `window` 1 an example is one cycle, x `[n, 24]`; with a longer one the last `window` cycles, x
    `[n, window, 24]`. An engine with fewer cycles than the window gives one example, its first cycle repeated at the
    beginning. Training engines run until they fail, so the target at cycle t is (last cycle - t); test engines
    are cut off before, their target comes from the RUL file, and only their last cycle is an example. Test
    engines are other engines than the training ones and belong to no client.

    FD003 is read from its test part alone: its engines are the training rows then, every cycle
    with the target (RUL of the file + last cycle - t), and there is no test set.

    Args:
      data_dir: Folder of data sets; it holds ``cmapss/``.
      subset: ``FD001`` or ``FD003``.
      window: Cycles in an example, at least 1.
      stride: Take every so many-th cycle as an example, counted back from the last; at least 1.
      cap: Targets above this many cycles are set to it (a healthy engine looks the same whatever is left), as
        is usual in the literature; None for no cap.

    Raises:
      SettingError: A setting is out of range.
      DataNotFoundError: The files are not there.
      DataError: The files do not fit together.

    References:
      Saxena, Goebel, Simon, Eklund 2008, "Damage propagation modeling for aircraft engine run-to-failure simulation".
      Heimes 2008, "Recurrent neural networks for remaining useful life estimation" (the cap).
    """
    _check(subset, window, stride, cap)
    files = (f"test_{subset}.txt", f"RUL_{subset}.txt") + (("train_FD001.txt",) if subset == "FD001" else ())
    folder = find_folder("cmapss", data_dir, files)
    left = read_delimited(folder / f"RUL_{subset}.txt", Format(header=False, delimiter=" ")).columns[0]
    cut_off = _engines(folder / f"test_{subset}.txt")
    if len(left) != len(cut_off):
        raise DataError(f"{folder}: {len(left)} lifetimes for {len(cut_off)} engines in subset {subset}")
    if subset == "FD001":
        engines = _engines(folder / "train_FD001.txt")
        train, groups = _examples(engines, np.zeros(len(engines)), window, stride, cap)
        last = max(len(engine) for engine in cut_off)
        test = _examples(cut_off, left, window, last, cap)[0]
    else:
        (train, groups), test = _examples(cut_off, left, window, stride, cap), None
    return Dataset(
        name="cmapss",
        train=train,
        test=test,
        target="number",
        features=_NAMES[2:],
        groups={"engine": groups},
        description=f"how many cycles a turbofan engine has left ({subset})",
        source="NASA Prognostics Center of Excellence (Saxena, Goebel 2008); no licence stated",
    )


def _check(subset: str, window: int, stride: int, cap: int | None) -> None:
    if subset not in ("FD001", "FD003"):
        raise SettingError("data.subset", f"got {subset!r}; wanted FD001 or FD003")
    for name, value in (("window", window), ("stride", stride), ("cap", 1 if cap is None else cap)):
        if value < 1:
            raise SettingError(f"data.{name}", f"got {value}; wanted at least 1")


def _engines(path: Path) -> list[np.ndarray]:
    """One array `[cycles, 24]` for each engine, in order."""
    table = read_delimited(path, Format(header=False, names=_NAMES, delimiter=" "))
    values = np.stack(table.columns, axis=1)
    starts = np.flatnonzero(np.diff(values[:, 0], prepend=-1))
    return [part[:, 2:].astype(np.float32) for part in np.split(values, starts[1:])]


def _examples(
    engines: list[np.ndarray], left: np.ndarray, window: int, stride: int, cap: int | None
) -> tuple[Examples, np.ndarray]:
    """Windows that end at every `stride`-th cycle counted back from the last; and the engine's number for each."""
    inputs, targets, groups = [], [], []
    for number, (engine, rest) in enumerate(zip(engines, left, strict=True), 1):
        ends = np.arange(len(engine) - 1, min(window, len(engine)) - 2, -stride)[::-1]
        at = np.maximum(ends[:, None] + np.arange(1 - window, 1), 0)
        inputs.append(engine[at] if window > 1 else engine[ends])
        targets.append(rest + len(engine) - 1 - ends)
        groups.append(np.full(len(ends), number, dtype=np.int64))
    y = np.concatenate(targets).astype(np.float32)
    return Examples(np.concatenate(inputs), y if cap is None else np.minimum(y, np.float32(cap))), np.concatenate(
        groups
    )
