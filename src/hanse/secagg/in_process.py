"""The real protocol with all parties in one process: for simulations, benchmarks and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hanse.core.errors import MessageRefusedError, SumAbandonedError
from hanse.core.random_bytes import RandomBytes
from hanse.secagg.client import ClientSession
from hanse.secagg.identity import RehearsedIdentities
from hanse.secagg.messages import Inbox, ToClient, ToServer
from hanse.secagg.phase import Phase
from hanse.secagg.server import SecureTotal, ServerSession
from hanse.secagg.terms import Terms

Source = Callable[[str], RandomBytes]
"""The randomness of a party: a client's name, `server`, or `identities`."""

Carry = Callable[[str, Phase, ToServer], ToServer | None]
"""What becomes of a client's answer in a phase: itself, another one, or None where it is lost."""


@dataclass(frozen=True)
class Rehearsal:
    """What came of it.

    Args:
      total: The sum.
      refused: The errors of messages that were refused, in order.
    """

    total: SecureTotal
    refused: tuple[MessageRefusedError, ...]


def sum_in_process(
    terms: Terms,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    source: Source,
    *,
    carry: Carry | None = None,
    threads: int = 1,
) -> Rehearsal:
    """Run a whole secure sum, message by message, every client's and the server's side as in a federation.

    Args:
      terms: For as many clients as there are inputs.
      inputs: Each client's parts.
      source: Where each party's keys come from; the outcome does not depend on it, what the server sees does.
      carry: What becomes of answers on the way; None loses nothing.
      threads: For masks.

    Raises:
      SumAbandonedError: Too few were left.
    """
    identities = RehearsedIdentities(sorted(inputs), source("identities"))
    server = ServerSession(terms, inputs, verify=identities.verify, source=source("server"), threads=threads)
    sessions = {}
    for name in sorted(inputs):
        sessions[name] = ClientSession(
            terms, name, sign=identities.sign_for(name), verify=identities.verify, source=source(name), threads=threads
        )
    refused: list[MessageRefusedError] = []
    while not server.is_done:
        for name, message in sorted(server.advance().items()):
            try:
                if isinstance(message, Inbox):
                    sessions[name].set_input(inputs[name])
                answer = _answer(sessions[name], message)
                if answer is not None and carry is not None:
                    answer = carry(name, server.phase, answer)
                if answer is not None:
                    server.receive(name, answer)
            except MessageRefusedError as error:
                refused.append(error)
    return Rehearsal(server.total, tuple(refused))


def _answer(session: ClientSession, message: ToClient) -> ToServer | None:
    try:
        return session.receive(message)
    except SumAbandonedError:
        return None  # this client is out; the server sees a drop-out
