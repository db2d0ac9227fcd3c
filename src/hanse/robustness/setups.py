"""What the robustness table trains, on each of its data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hanse.core.errors import SettingError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A data set, and a federation that learns it in about a second.

    Args:
      data: The job's table `data` without a partition; `root` examples are the server's under every rule, so that all
        rules are measured on the same clients.
      task: The job's table `task`.
      strategy: The job's table `strategy`.
      rounds: Of each run, unless it is said otherwise.
      min_size: Fewest examples of a client under label skew.
      trigger: Of backdoors.
      clients: N.
      alpha: Concentration of the classes under label skew.
    """

    data: Mapping[str, Any]
    task: Mapping[str, Any]
    strategy: Mapping[str, Any]
    rounds: int
    min_size: int
    trigger: Mapping[str, Any]
    clients: int = 20
    alpha: float = 0.3

    def partition(self, name: str) -> dict[str, Any]:
        """The job's table `data.partition`: ``"iid"`` or ``"dirichlet"``."""
        table: dict[str, Any] = {"use": name, "clients": self.clients}
        return table if name == "iid" else {**table, "alpha": self.alpha, "min_size": self.min_size}


def _fedavg(lr: float, batch_size: int) -> dict[str, Any]:
    local = {"epochs": 1, "batch_size": batch_size, "optimizer": {"use": "sgd", "lr": lr}}
    return {"use": "fedavg", "weighting": "uniform", "local": local}


def _mlp(hidden: int) -> dict[str, Any]:
    return {"use": "classification", "model": {"use": "mlp", "hidden": [hidden]}}


SETUPS: Mapping[str, Setup] = {
    "digits": Setup(
        data={"use": "digits", "root": 100, "split": {"test": 0.25}},
        task=_mlp(32),
        strategy=_fedavg(lr=0.5, batch_size=16),
        rounds=25,
        min_size=16,
        trigger={"size": 2},
    ),
    "mnist": Setup(
        data={"use": "mnist", "root": 100},
        task=_mlp(64),
        strategy=_fedavg(lr=0.1, batch_size=32),
        rounds=10,
        min_size=100,
        trigger={"size": 3},
    ),
}
"""Name of a data set to what is done with it."""

PARTITIONS = ("iid", "dirichlet")


def setup_of(data: str) -> Setup:
    """What is done with a data set; raises `SettingError` where it has no table."""
    if data not in SETUPS:
        raise SettingError("--data", f"there is no robustness table on `{data}`", hint=did_you_mean(data, SETUPS))
    return SETUPS[data]
