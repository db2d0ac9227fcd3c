"""`Policy`: what a site agrees to, and the sentences that say what it does not agree to.

Nothing of a job is imported before the policy has admitted its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hanse.core.adversarial import gradients_per_batch
from hanse.core.errors import HanseError, RefusedError
from hanse.core.local_work import LocalWork
from hanse.federation.client.packages import hash_of
from hanse.federation.client.site_config import ANY, PolicyTable, zone
from hanse.jobs.build import PRESETS
from hanse.jobs.registry import NAMES, Kind, path_of


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """How many take part in a run; 0 where that is not known yet."""

    sites: int = 0
    clients: int = 0


class Policy:
    """A site's policy.

    Args:
      table: `[policy]` of its `site.toml`.
    """

    def __init__(self, table: PolicyTable) -> None:
        self._table = table
        self._hashes: dict[str, str | None] = {}

    def refusals(self, job: Mapping[str, Any], submitter: str, cohort: Cohort, now: float) -> list[str]:
        """Why the site does not take part in a run; empty where it does.

        Args:
          job: The job's values, as they stand in a job file.
          submitter: The user who asks.
          cohort: How many take part, as far as that is known.
          now: Seconds since 1970.
        """
        table = self._table
        found = []
        if table.submitters and submitter not in table.submitters:
            who = f"`{submitter}`" if submitter else "someone unnamed"
            found.append(f"this site works for {_listed(table.submitters)} only; {who} asks")
        found += self._names("task", job.get("task"), table.tasks)
        found += self._names("strategy", job.get("strategy"), table.strategies)
        if 0 < cohort.clients < table.min_clients:
            found.append(f"the run has {cohort.clients} client(s); this site asks for at least {table.min_clients}")
        if 0 < cohort.sites < table.min_sites:
            found.append(f"the run has {cohort.sites} site(s); this site asks for at least {table.min_sites}")
        evaluate = job.get("evaluate")
        if not table.evaluate_train and isinstance(evaluate, Mapping) and evaluate.get("split") == "train":
            found.append("the job measures models on training data (evaluate.split), which this site does not allow")
        return found + self.closed(now)

    def closed(self, now: float) -> list[str]:
        """Why the site does not work at this time of day; empty where it does."""
        window = self._table.window
        if window is None:
            return []
        start, end = window
        local = datetime.fromtimestamp(now, UTC).astimezone(zone(self._table.time_zone)).time()
        # from 20:00 to 06:00 is the night, through midnight; the end itself is outside
        opened = start <= local < end if start <= end else local >= start or local < end
        if opened or start == end:
            return []
        return [
            f"this site works {self._table.hours} ({self._table.time_zone}) only; it is {local.strftime('%H:%M')} there"
        ]

    def work_refusals(self, work: LocalWork, num_examples: int = 1) -> list[str]:
        """Why the site does not do such local work, its legs included; for a client of `num_examples` examples.

        Where one step takes several gradients, each counts as a step, or its batches as those of another epoch.
        """
        table = self._table
        found = []
        epochs = sum(piece.epochs * _gradients(piece) for piece in work.pieces if piece.steps is None)
        if table.max_epochs is not None and epochs > table.max_epochs:
            found.append(f"the job asks for {epochs} local epochs; this site does at most {table.max_epochs}")
        steps = sum(piece.num_steps(num_examples) * _gradients(piece) for piece in work.pieces)
        if table.max_steps is not None and steps > table.max_steps:
            # how many they are of its examples would tell how many examples a client has
            told = all(piece.steps is not None for piece in work.pieces)
            asked = f"{steps:,} local steps" if told else "more local steps, by a client's examples"
            found.append(f"the job asks for {asked}; this site does at most {table.max_steps:,}")
        return found

    def evaluation_refusals(self, split: str) -> list[str]:
        """Why the site does not measure models on this part of its data."""
        if split == "train" and not self._table.evaluate_train:
            return ["this site does not measure models on training data"]
        return []

    def admit(self, kind: Kind, path: str, where: str) -> None:
        """Let a name be imported, or not: Hanse's own for their purpose, and allowed packages of the right hash.

        Args:
          kind: What it is to be.
          path: ``module:object``.
          where: Where the job names it.

        Raises:
          RefusedError: It may not be used here.
        """
        if path in NAMES[kind].values():
            return
        package = path.partition(":")[0].partition(".")[0]
        allowed = self._table.packages.get(package)
        if allowed is None:
            what = "is none of the names that Hanse offers" if package == "hanse" else f"is of package `{package}`"
            raise RefusedError(
                f"{where}: `{path}` {what}, and this site runs no other code than it has agreed to",
                hint=f"the site's administrator can allow it in site.toml: [policy.packages] {package} = "
                '"sha256:…", as `hanse site packages` prints it',
            )
        if allowed == ANY:
            return
        if package not in self._hashes:
            self._hashes[package] = hash_of(package)
        found = self._hashes[package]
        if found != allowed:
            has = "does not have it" if found is None else f"has {found[:19]}…"
            raise RefusedError(
                f"{where}: this site allows package `{package}` in the version {allowed[:19]}… only, and {has}",
                hint="compare `hanse site packages` on the sites; whoever changed a package agrees to it anew",
            )

    def _names(self, kind: Kind, value: object, allowed: list[str] | None) -> list[str]:
        if allowed is None:
            return []
        name = value.get("use") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or not (name in allowed or self._same(kind, name, allowed)):
            return [f"the job's {kind} `{name}` is none of those that this site allows: {_listed(allowed)}"]
        return []

    def _same(self, kind: Kind, name: str, allowed: list[str]) -> bool:
        """Whether the name is another one of something that is allowed, ``module:object`` for example."""
        return _path(kind, name) in {_path(kind, other) for other in allowed} - {None}


def _gradients(work: LocalWork) -> int:
    """How many times as much work as a step of one gradient a step is, or an epoch of such."""
    accumulated = 1 if work.steps is None else work.accumulate  # of an epoch, all batches count as it is
    return (
        accumulated * gradients_per_batch(work.adversarial) * max(1, int(getattr(work.stepping, "batch_gradients", 1)))
    )


def _path(kind: Kind, name: str) -> str | None:
    try:
        return path_of(kind, str(PRESETS.get((kind, name), {}).get("use", name)), where=kind)
    except HanseError:
        return None


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
