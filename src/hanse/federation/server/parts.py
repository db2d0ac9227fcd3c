"""What the coordinator's web side is made of: its parts, and what it asks of those that work behind it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from hanse.federation.protocol import BlobRef, RunCard, RunExport, SubmitRequest, SyncRequest, SyncResponse, WorkItem
from hanse.federation.server.enrolment import Enrolment
from hanse.federation.server.limits import Limits
from hanse.federation.server.ports import AccessBook, RunBook, SiteBook


class Dispatcher(Protocol):
    """Hands work to sites and takes their answers; called from the server's event loop."""

    async def sync(self, site: str, request: SyncRequest) -> SyncResponse:
        """One call of a site: take what it brings, hold it for `request.wait_s` at most, answer what is new."""
        ...

    def working(self) -> Mapping[str, Sequence[str]]:
        """Connected sites, and the items that each works on; those that have not called for a while are left out."""
        ...

    def touch(self, site: str) -> None:
        """The site was heard of by another request than `sync`, such as a long upload."""
        ...

    def forget(self, site: str) -> None:
        """The site was revoked: what it held is handed to nobody, and a request of it that waits is answered."""
        ...


class Runner(Protocol):
    """Runs jobs. All methods but `wait` are called from worker threads."""

    def submit(self, request: SubmitRequest, *, submitter: str) -> str:
        """Check, queue and return the run's id; the same `key` again is the same run.

        Raises:
          JobError: The job can't run.
        """
        ...

    def hides_cohorts(self, run: str) -> bool:
        """Whether who takes part in the run's rounds is a secret of the coordinator's."""
        ...

    def stop(self, run: str) -> None:
        """Ask the run to stop; one that has ended stays as it is."""
        ...

    def cards(self) -> list[RunCard]:
        """All runs, oldest first, without their sites' parts."""
        ...

    def card(self, run: str) -> RunCard:
        """One run.

        Raises:
          RunNotFoundError: There is none; the message names the nearest.
        """
        ...

    def export(self, run: str) -> RunExport:
        """What a folder of the run is made from."""
        ...

    async def wait(self, run: str, *, after: int, seconds: float) -> None:
        """Return once the run has an event after number `after` or has ended, and after so many seconds at most."""
        ...


SendBlob = Callable[[BlobRef, Request], Awaitable[Response]]
"""Answers a request with a blob, or the range of it that the request names."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that `make_app` needs.

    Args:
      federation: The federation's name.
      epoch: 32 hex digits, new at each start: what sites sign for.
      tls_authority: The certificate, PEM, of the CA behind the coordinator's TLS; empty where that is a public one.
      enrolment: Lets sites and users in.
      sites, access, runs: The books.
      dispatcher, runner: What works behind.
      send_blob: Sends models.
      handed: Told which work a site was given.
      limits: What a caller may take.
      clock: Seconds since 1970.
    """

    federation: str
    epoch: str
    tls_authority: str = ""
    enrolment: Enrolment
    sites: SiteBook
    access: AccessBook
    runs: RunBook
    dispatcher: Dispatcher
    runner: Runner
    send_blob: SendBlob
    handed: Callable[[str, Sequence[WorkItem]], None] = lambda site, work: None
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
