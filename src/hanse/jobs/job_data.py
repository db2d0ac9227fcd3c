"""`build_data`: the data that a job describes, shared out among clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.core.errors import HanseError, SettingError
from hanse.data.dataset import Dataset
from hanse.data.federated import FederatedDataset
from hanse.data.root import put_aside
from hanse.data.split import Split
from hanse.jobs.annotations import settings_of
from hanse.jobs.build import FAILED, Admit, Builder, shown
from hanse.jobs.job import Job
from hanse.jobs.own_modules import importable

DEFAULT_TEST = 0.2
"""What clients keep back for testing where neither the job nor an official test set says otherwise."""


def build_data(job: Job, *, admit: Admit | None = None) -> FederatedDataset:
    """Read the data that a job describes, and share it out.

    Args:
      job: The job.
      admit: Asked about everything that `data` names, before it is imported; None admits everything.

    Raises:
      HanseError: What is wrong, all of it at once.
    """
    with importable(job.folder):
        builder = Builder(folder=job.folder, admit=admit)
        data = DataBuilder(job, builder)
        dataset = data.shared_out(data.chosen())
        builder.raise_problems(job.source)
        found: FederatedDataset = dataset
        return found


class DataBuilder:
    """Builds a job's data with somebody's `Builder`, in which problems gather.

    Args:
      job: The job.
      builder: Builds and gathers.
    """

    def __init__(self, job: Job, builder: Builder) -> None:
        self._job = job
        self._builder = builder
        self.table: Any = {}
        self._root: Any = None

    def chosen(self) -> Any:
        """The data set, the partition and the split, which do not know each other yet; or `FAILED`."""
        value = self._job.values.data
        table = {"use": value} if isinstance(value, str) else dict(value)
        own = {key: item for key, item in table.items() if key not in ("partition", "split", "data_dir", "root")}
        folder = self._job.data_dir or table.get("data_dir")
        if folder is not None and self._takes_data_dir(table.get("use")):
            own["data_dir"] = str(folder) if isinstance(folder, Path) else folder
        built, self.table = self._builder.choose("data", own, "data")
        self._root = table.get("root")
        if self._root is not None and type(self._root) is not int:
            problem = f"got {shown(self._root)}; wanted a whole number of training examples for the server"
            self._builder.problems.append(SettingError("data.root", problem))
            built = FAILED
        partition, split = self._partitioner(table), self._split(table)
        if built is FAILED or partition is FAILED or split is FAILED:
            return FAILED
        return built, partition, split

    def shared_out(self, chosen: Any) -> Any:
        """The federation of what `chosen` returned; or `FAILED`."""
        if chosen is FAILED:
            return FAILED
        dataset, partition, split = chosen
        builder = self._builder
        if isinstance(dataset, FederatedDataset):
            named = {"partition": partition, "split": split, "root": self._root}
            what = next((name for name, value in named.items() if value is not None), None)
            if what is not None:
                builder.problems.append(
                    SettingError(
                        f"data.{what}", "the data comes per client already, so this has no effect", hint="leave it out"
                    )
                )
                return FAILED
            return dataset
        if not isinstance(dataset, Dataset):
            wanted = "a Dataset or a FederatedDataset"
            builder.problems.append(SettingError("data.use", f"made {type(dataset).__name__}; wanted {wanted}"))
            return FAILED
        if partition is None:
            known = ", ".join(dataset.groups)
            natural = f'; or {{ use = "natural", column = "…" }} by one of: {known}' if known else ""
            hint = f'for example: partition = {{ use = "iid", clients = 10 }}{natural}'
            builder.problems.append(SettingError("data.partition", "missing; who holds what?", hint=hint))
            return FAILED
        return self._partitioned(dataset, partition, split)

    def _partitioned(self, dataset: Dataset, partition: Any, split: Split | None) -> Any:
        values, builder, root = self._job.values, self._builder, None
        if self._root is not None:
            self.table["root"] = self._root
            put = builder.attempt(lambda: put_aside(dataset, self._root, seed=values.seed), "data")
            if put is FAILED:
                return FAILED
            dataset, root = put
        shared_out = builder.attempt(lambda: partition(dataset, values.seed), "data.partition")
        if shared_out is FAILED:
            return FAILED
        has_own_test = shared_out.test_rows is not None
        chosen = split or default_split(dataset, has_own_test=has_own_test, baselines=bool(values.baselines))
        _, self.table["split"] = builder.fill(Split, vars(chosen), "data.split")
        return builder.attempt(
            lambda: FederatedDataset.partition(dataset, shared_out, split=chosen, seed=values.seed, root=root), "data"
        )

    def _takes_data_dir(self, use: object) -> bool:
        if not isinstance(use, str):
            return False
        try:
            return "data_dir" in settings_of(self._builder.found("data", use, "data"))
        except HanseError:
            return False  # said where the data set is built

    def _partitioner(self, table: Mapping[str, Any]) -> Any:
        if "partition" not in table:
            return None
        built, self.table["partition"] = self._builder.choose("partition", table["partition"], "data.partition")
        return built

    def _split(self, table: Mapping[str, Any]) -> Any:
        if "split" not in table:
            return None
        built, self.table["split"] = self._builder.fill(Split, table["split"], "data.split")
        return built


def default_split(dataset: Dataset, *, has_own_test: bool, baselines: bool) -> Split:
    """What clients keep back where the job does not say: nothing where something else is there to measure on."""
    measured_anyway = dataset.test is not None and not baselines
    return Split() if has_own_test or measured_anyway else Split(test=DEFAULT_TEST)
