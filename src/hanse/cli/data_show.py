"""What `hanse data show` says: a data set in a few lines, and who holds what as a table, bars and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hanse.cli.bars import bars
from hanse.cli.finish import holdings
from hanse.core.errors import JobError, MissingExtraError, SettingError, StorageError
from hanse.core.units import format_count, plural
from hanse.data.dataset import Dataset
from hanse.data.federated import FederatedDataset
from hanse.data.summary import PartitionSummary, summarise
from hanse.jobs.annotations import settings_of
from hanse.jobs.build import FAILED, Builder
from hanse.jobs.job import parse_value
from hanse.jobs.registry import find

_MOST_ROWS = 40


@dataclass(frozen=True, kw_only=True)
class View:
    """What was asked to be shown.

    Args:
      name: Of the data set or job.
      partition: How it is shared out; empty where it is not.
      dataset: The data set; None where a job's data comes per client.
      summary: Who holds what; None without a partition.
    """

    name: str
    partition: str
    dataset: Dataset | None
    summary: PartitionSummary | None

    def as_values(self) -> dict[str, Any]:
        """The same, for other programs."""
        found: dict[str, Any] = {"name": self.name, "partition": self.partition or None}
        if self.dataset is not None:
            found |= dict(_about(self.dataset))
        summary = self.summary
        if summary is not None:
            counts = summary.class_counts
            found["clients"] = {
                client: int(size) if counts is None else dict(zip(summary.classes, counts[i].tolist(), strict=True))
                for i, (client, size) in enumerate(zip(summary.clients, summary.sizes, strict=True))
            }
            found |= {"num_clients": summary.num_clients, "label_distance": summary.label_distance}
        return found


def parse_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Free options as settings.

    >>> parse_settings(["--alpha", "0.3", "--equal-sizes", "--clients=20"])
    {'alpha': 0.3, 'equal_sizes': True, 'clients': 20}

    Raises:
      JobError: Something that is no option.
    """
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise JobError(f"`{option}` is no option", hint="settings are given as --alpha 0.3")
        key, equals, text = option[2:].partition("=")
        if not equals and rest and not rest[0].startswith("--"):
            equals, text = "=", rest.pop(0)
        found[key.replace("-", "_")] = parse_value(text) if equals else True
    return found


def look_at(name: str, partition: str | None, settings: dict[str, Any], *, seed: int, data_dir: Path | None) -> View:
    """Load what is to be shown.

    Args:
      name: A known data set, a user's own, or a job file.
      partition: A partitioner's name; None shows the data set alone.
      settings: Of the data set and of the partitioner.
      seed: Of the partition.
      data_dir: Folder of data sets.

    Raises:
      HanseError: Unknown names or settings, or data that can't be read.
    """
    if name.endswith(".toml"):
        return _of_job(Path(name), data_dir)
    builder = Builder(folder=Path.cwd())
    own = settings_of(find("data", name, where="data", folder=Path.cwd()))
    table = {key: value for key, value in settings.items() if key in own}
    rest = {key: value for key, value in settings.items() if key not in own}
    if data_dir is not None and "data_dir" in own:
        table["data_dir"] = str(data_dir.resolve())
    if partition is None and rest:
        key = next(iter(rest))
        raise SettingError(
            f"--{key}", f"`{name}` has no such setting", hint="a partitioner's settings need --partition"
        )
    made: Any = None
    if partition is not None:
        made, _ = builder.choose("partition", {"use": partition, **rest}, "partition")
    dataset, _ = builder.choose("data", {"use": name, **table}, "data")
    builder.raise_problems("the command")
    if isinstance(dataset, FederatedDataset):
        return View(name=name, partition="", dataset=dataset.dataset, summary=summarise(dataset))
    summary = None
    if partition is not None and made is not FAILED:
        summary = summarise(FederatedDataset.partition(dataset, made(dataset, seed), seed=seed))
    return View(name=name, partition=partition or "", dataset=dataset, summary=summary)


def print_view(view: View, picture: Path | None) -> None:
    """Print it, and draw the picture.

    Raises:
      MissingExtraError: A picture was asked for and matplotlib is not installed.
      StorageError: The picture can't be written.
    """
    console = Console()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    if view.dataset is not None:
        for label, value in _about(view.dataset):
            grid.add_row(label.replace("_", " "), Text(_in_words(value)))
    if view.summary is not None:
        for label, text in _spread(view.summary):
            grid.add_row(label, Text(text))
    console.print(Text(view.name, style="bold"))
    console.print(grid)
    if view.summary is None:
        return
    console.print()
    console.print(bars(view.summary, most=_MOST_ROWS))
    _draw(view, picture, console)


def _draw(view: View, picture: Path | None, console: Console) -> None:
    assert view.summary is not None
    stem = Path(view.name).stem.replace(":", "-")
    target = picture or Path(f"{stem}-{view.partition or 'clients'}.png")
    try:
        from hanse.plots.partition import draw_partition

        figure = draw_partition(holdings(view.summary))
        figure.savefig(target, dpi=160)
    except MissingExtraError as error:
        if picture is not None:
            raise
        console.print(f"no picture: {error.message}; {error.hint}", markup=False, highlight=False)
        return
    except OSError as error:
        raise StorageError(
            f"the picture {target} can't be written: {error.strerror}", hint="name another file with --picture"
        ) from error
    except ValueError as error:  # matplotlib's word for an ending that it does not know
        raise SettingError("--picture", f"`{target}` can't be drawn: {error}", hint="use .png or .svg") from error
    console.print(f"picture  {target}", markup=False, highlight=False, soft_wrap=True)


def _of_job(file: Path, data_dir: Path | None) -> View:
    from hanse.jobs.assemble import build_job
    from hanse.jobs.job import load_job

    built = build_job(load_job(file, data_dir=data_dir))
    dataset = built.simulation.dataset
    job: Any = built.simulation.job
    used = job["data"].get("partition", {}).get("use", "")
    return View(name=str(file), partition=used, dataset=dataset.dataset, summary=summarise(dataset))


def _about(dataset: Dataset) -> list[tuple[str, Any]]:
    shape = list(dataset.train.x.shape[1:])
    found: list[tuple[str, Any]] = [
        ("description", dataset.description),
        ("source", dataset.source),
        ("training_examples", len(dataset.train)),
        ("test_examples", 0 if dataset.test is None else len(dataset.test)),
        ("input_shape", shape),
        ("target", dataset.target),
    ]
    if dataset.classes:
        found.append(("classes", list(dataset.classes)))
    if dataset.groups:
        natural = {column: len(np.unique(labels)) for column, labels in dataset.groups.items()}
        found.append(("natural_clients", natural))
    return found


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} by {column}" for column, count in value.items())
    if isinstance(value, list) and value and isinstance(value[0], str):
        more = f", … ({len(value):,} in all)" if len(value) > 12 else ""
        return ", ".join(value[:12]) + more
    return format_count(value) if isinstance(value, int) else str(value)


def _spread(summary: PartitionSummary) -> list[tuple[str, str]]:
    low, lower, median, upper, high = (f"{value:,.0f}" for value in summary.size_quantiles)
    lines = [
        ("clients", format_count(summary.num_clients)),
        ("a client holds", f"{low} to {high} examples; half of them {lower} to {upper}, median {median}"),
    ]
    if summary.num_empty:
        lines.append(("", f"{plural(summary.num_empty, 'client')} without any"))
    if summary.label_distance is not None:
        alike = f"{summary.label_distance:.2f} (0: every client has the same mix of classes; 1: nothing in common)"
        lines.append(("label skew", alike))
    return lines
