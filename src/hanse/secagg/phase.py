"""The phases of a secure sum, and the sentences for what goes wrong in them."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from hanse.core.errors import MessageRefusedError, SumAbandonedError

SERVER = "server"
"""Who is named in errors about the server's messages."""


class Phase(StrEnum):
    """Where a session stands: what is awaited from clients next."""

    START = "start"
    KEYS = "keys"
    SHARES = "shares"
    INPUTS = "inputs"
    CONFIRMATION = "confirmation"
    UNMASKING = "unmasking"
    DONE = "done"
    ABANDONED = "abandoned"


def refuse(phase: Phase, sender: str, problem: str, *, hint: str | None = None) -> NoReturn:
    """Raise `MessageRefusedError`, naming sender and phase."""
    who = "the server" if sender == SERVER else f"client `{sender}`"
    text = f"secure sum, {phase}: a message of {who} is refused: {problem}"
    raise MessageRefusedError(text, client=sender, phase=phase, hint=hint)


def abandon(phase: Phase, problem: str, *, client: str = "") -> NoReturn:
    """Raise `SumAbandonedError`, naming the phase, and the client that it is due to."""
    text = f"secure sum, {phase}: abandoned, and nothing was revealed: {problem}"
    raise SumAbandonedError(text, client=client, phase=phase)
