"""The in-process transport: clients run one after another in this process, where a debugger can stop them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hanse.core.messages import Phase, Reply
from hanse.rounds.client_runtime import ClientRuntime
from hanse.simulation.storage_failures import refuse_storage_failures


class InProcessTransport:
    """Hands phases straight to a `ClientRuntime`.

    Args:
      runtime: Answers for all clients.
    """

    def __init__(self, runtime: ClientRuntime) -> None:
        self._runtime = runtime

    @property
    def clients(self) -> Sequence[str]:
        """Everybody in the data set."""
        return self._runtime.dataset.clients

    def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[Reply]:
        """Replies in the order of `clients`, each computed when it is asked for."""
        return refuse_storage_failures(self._runtime.answer(phase, clients))

    def close(self) -> None:
        """Nothing to let go of."""
