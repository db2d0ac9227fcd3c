"""What an attack is: it crafts updates, poisons training examples, or plants something that a trigger shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from hanse.data.examples import Examples

Knowledge = Literal["own", "members", "all"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What the attackers of one round know.

    Args:
      round: Its number, from 1.
      members: The attackers in the round, sorted; one alone where the attack knows its own update only.
      own: What each member's own local training gave, `[P]` floating, in the order of `members`; honest training
        unless the attack poisons data. Only read.
      honest: Updates of the round's honest clients, `[P]` each, where the attack knows everybody's; else empty. Only
        read.
      num_clients: n, clients of the round, attackers among them.
      rng: The attackers', the same whenever the round is repeated.
      rule: The server's aggregation in force as a function of all rows, the honest ones first; None where unknown.
    """

    round: int
    members: tuple[str, ...]
    own: tuple[np.ndarray, ...]
    num_clients: int
    rng: np.random.Generator
    honest: tuple[np.ndarray, ...] = ()
    rule: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None


@runtime_checkable
class Crafts(Protocol):
    """An attack on what is sent: a frozen dataclass of its settings."""

    @property
    def knows(self) -> Knowledge:
        """Whose updates it is told: its ``own`` (each member is called alone), all ``members``', or ``all``."""
        ...

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """What each member sends, in the order of `seen.members`, of the shape and type of its own update."""
        ...


@runtime_checkable
class Poisons(Protocol):
    """An attack on what members train on: a frozen dataclass of its settings."""

    def poison(
        self, examples: Examples, *, member: int, num_members: int, num_classes: int, rng: np.random.Generator
    ) -> Examples:
        """What a member trains on instead; `examples` stay as they are.

        Args:
          examples: Its own, for training.
          member: Its place among the members, from 0.
          num_members: How many there are.
          num_classes: K, classes of the task.
          rng: This member's.

        Raises:
          PipelineError: Its targets are of another kind than the attack needs.
          SettingError: A class that the attack names is not among the task's.
          DataError: The trigger does not fit the inputs.
        """
        ...


@runtime_checkable
class Triggers(Protocol):
    """A backdoor: inputs with a trigger are to be taken for the target class."""

    def triggered(self, test: Examples, *, num_classes: int) -> Examples:
        """The test examples of other classes than the target, all with the whole trigger, labelled with the target.

        Accuracy on these is the attack's success. There may be none. Raises as `Poisons.poison`.
        """
        ...
