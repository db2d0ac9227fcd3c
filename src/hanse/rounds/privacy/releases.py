"""What a private run tells beside its models: nothing."""

from __future__ import annotations

from dataclasses import replace

from hanse.core.errors import PrivacyError
from hanse.core.protocols import Task
from hanse.rounds.selection import Poisson
from hanse.rounds.settings import RoundSettings


def quiet(settings: RoundSettings) -> RoundSettings:
    """The settings without questions about clients' own examples."""
    return replace(settings, evaluate=replace(settings.evaluate, clients="none"))


def check_releases(settings: RoundSettings, task: Task) -> None:
    """Refuse what would be told of clients without noise.

    Raises:
      PrivacyError: Something would.
    """
    if settings.evaluate.clients not in ("none", "auto"):
        raise PrivacyError(
            f"evaluate.clients is {settings.evaluate.clients!r}: metrics on clients' own examples would be told "
            "without any noise",
            hint='use evaluate = { clients = "none" }, and measure on the central test set',
        )
    if task.preprocess is not None and task.preprocess.scope == "federated":
        raise PrivacyError(
            "task.preprocess: sums over all clients' inputs would be told without any noise",
            hint='use preprocess = { use = "standardize", fit = "client" }',
        )
    if settings.min_clients > 1 and isinstance(settings.cohort, Poisson):
        raise PrivacyError(
            "min_clients: giving a round up because few were drawn tells how many were",
            hint="leave min_clients at 1, or draw cohorts of a fixed size",
        )
