"""`ServerExamples`: what the server finds out on examples of its own: a round's local work, and a model's loss."""

from __future__ import annotations

from dataclasses import replace

from hanse.core.errors import RunError
from hanse.core.messages import EvaluatePhase, Evaluation, Phase, Reply, TrainPhase, Update
from hanse.core.params import Params
from hanse.core.protocols import Task
from hanse.data.examples import Examples
from hanse.data.federated import ClientData, FederatedDataset
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.kept_vectors import KeptInMemory
from hanse.trainers.base import Trainer

SERVER = "server"
"""What the server is called where it does a client's work."""


class ServerExamples:
    """Does what clients are asked to do, as one more of them; nothing is encoded, and nothing kept between rounds.

    Args:
      examples: The server's.
      task: What is learned.
      trainer: Runs local work, and measures.
      seed: The job's.
    """

    def __init__(self, examples: Examples, task: Task, trainer: Trainer, *, seed: int) -> None:
        none = examples.take(slice(0, 0))
        dataset = FederatedDataset.from_clients({SERVER: ClientData(SERVER, examples, none, none)})
        self._task = task
        self._runtime = ClientRuntime(dataset, task, trainer, Pipeline(), seed=seed, kept=KeptInMemory())

    def update(self, phase: TrainPhase) -> Update:
        """What comes of a round's work on them.

        Raises:
          RunError: The work fails on these examples.
        """
        own = replace(phase, accepted={}, stages={}, shares={}, groups=(), reserves=0, cohort=1)
        reply = self._answer(own)
        if not isinstance(reply, Update):
            raise _failed(phase.round, reply)
        return reply

    def loss(self, phase: TrainPhase, delta: Params) -> float:
        """The mean loss of a phase's model plus a delta.

        Raises:
          RunError: It can't be measured on these examples.
        """
        sent = phase.broadcast.params
        moved = sent.overlay(sent.select(delta.spec) + delta) if delta.spec != sent.spec else sent + delta
        asked = EvaluatePhase(round=phase.round, params=moved, split="train", statistics=phase.statistics)
        reply = self._answer(asked)
        if not isinstance(reply, Evaluation):
            raise _failed(phase.round, reply)
        return self._task.metrics(reply.sums)["loss"]

    def _answer(self, phase: Phase) -> Reply:
        return next(iter(self._runtime.answer(phase, (SERVER,))))


def _failed(number: int, reply: Reply) -> RunError:
    return RunError(
        f"round {number}: the server could not work on its own examples: {getattr(reply, 'message', reply)}",
        hint="data.root takes them; more of them, or a smaller learning rate, may help",
    )
