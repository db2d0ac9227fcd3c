"""`PlacedAttack`: an attack, and the clients of a simulation that carry it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.attacks.attack import Crafts, Poisons, Triggers
from hanse.attacks.members import Members
from hanse.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class PlacedAttack:
    """What a simulation's hostile clients do.

    Args:
      attack: What they do.
      members: Who they are.
    """

    attack: Crafts | Poisons
    members: Members

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Crafts | Poisons):
            name = type(self.attack).__name__
            raise SettingError(
                "attack.use",
                f"`{name}` is no attack",
                hint="it crafts updates (`craft`) or poisons examples (`poison`)",
            )

    @property
    def crafts(self) -> Crafts | None:
        """What makes the updates that they send, where they do not send what they trained."""
        return self.attack if isinstance(self.attack, Crafts) else None

    @property
    def poisons(self) -> Poisons | None:
        """What changes their training examples, if anything does."""
        return self.attack if isinstance(self.attack, Poisons) else None

    @property
    def triggers(self) -> Triggers | None:
        """What makes the examples that its success is measured on, where it has a backdoor."""
        return self.attack if isinstance(self.attack, Triggers) else None

    def may_attack(self, clients: Sequence[str], seed: int) -> tuple[str, ...]:
        """Everybody who is hostile in some round, sorted; raises `SettingError` where there is no such client."""
        return self.members.fixed(clients, seed)
