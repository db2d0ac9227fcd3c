"""`ServerUpdate`: a round's local work on examples of the server's own."""

from __future__ import annotations

from dataclasses import replace

from hanse.core.errors import RunError
from hanse.core.messages import TrainPhase, Update
from hanse.core.protocols import Task
from hanse.data.examples import Examples
from hanse.data.federated import ClientData, FederatedDataset
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.kept_vectors import KeptInMemory
from hanse.trainers.base import Trainer

SERVER = "server"
"""What the server is called where it does a client's work."""


class ServerUpdate:
    """Does what clients are asked to do, as one more of them; nothing is encoded, and nothing kept between rounds.

    Args:
      examples: The server's.
      task: What is learned.
      trainer: Runs local work.
      seed: The job's.
    """

    def __init__(self, examples: Examples, task: Task, trainer: Trainer, *, seed: int) -> None:
        data = ClientData(SERVER, examples, examples.take(slice(0, 0)), examples.take(slice(0, 0)))
        dataset = FederatedDataset.from_clients({SERVER: data})
        self._runtime = ClientRuntime(dataset, task, trainer, Pipeline(), seed=seed, kept=KeptInMemory())

    def __call__(self, phase: TrainPhase) -> Update:
        """The update.

        Raises:
          RunError: The work fails on these examples.
        """
        own = replace(phase, accepted={}, stages={}, shares={}, groups=(), reserves=0, cohort=1)
        reply = next(iter(self._runtime.answer(own, (SERVER,))))
        if not isinstance(reply, Update):
            raise RunError(
                f"round {phase.round}: the server could not train on its own examples: "
                f"{getattr(reply, 'message', reply)}",
                hint="data.root takes them; more of them, or a smaller learning rate, may help",
            )
        return reply
