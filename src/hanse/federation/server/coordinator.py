"""`open_coordinator`: all parts of a coordinator, put together on its state folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from hanse.federation.blobs.deltas import Deltas
from hanse.federation.blobs.store import BlobStore
from hanse.federation.blobs.uploads import Uploads
from hanse.federation.identity.authority import Authority
from hanse.federation.identity.tokens import PUBLIC
from hanse.federation.protocol import BlobRef
from hanse.federation.server.admission import admit_registered
from hanse.federation.server.app import make_app
from hanse.federation.server.database.access_book import DatabaseAccessBook
from hanse.federation.server.database.engine import open_database
from hanse.federation.server.database.journal import DatabaseJournal
from hanse.federation.server.database.run_book import DatabaseRunBook
from hanse.federation.server.database.site_book import DatabaseSiteBook
from hanse.federation.server.database.work_book import DatabaseWorkBook
from hanse.federation.server.dispatcher import Dispatcher
from hanse.federation.server.enrolment import Enrolment
from hanse.federation.server.limits import Limits
from hanse.federation.server.live_run import Bureau
from hanse.federation.server.logs import LOGGER
from hanse.federation.server.parts import Parts
from hanse.federation.server.ports import AccessBook
from hanse.federation.server.reading import Reading
from hanse.federation.server.routes.blobs import blobs_routes, send_blob
from hanse.federation.server.runner import Runner
from hanse.federation.server.security import Guard
from hanse.rounds.privacy.run import LEDGER

DATABASE = "hanse.sqlite"
BLOBS = "blobs"
SPOOL = "uploads"

_GRACE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class CoordinatorSettings:
    """What a coordinator is made of.

    Args:
      state: Its folder, made already.
      authority: Its CA.
      epoch: 32 hex digits, new at each start.
      address: Where sites and users reach it.
      trust: What they check its TLS certificate by; see `tokens`.
      tls_authority: The certificate of the CA behind its TLS, PEM; empty where that is a public one.
      federation: Its name.
      database, blobs: URLs, in place of what is in the state folder.
      limits: What callers may take.
      clock: Seconds since 1970.
    """

    state: Path
    authority: Authority
    epoch: str
    address: str
    trust: str = PUBLIC
    tls_authority: str = ""
    federation: str = "hanse"
    database: str | None = None
    blobs: str | None = None
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """A coordinator that is ready to be served.

    Args:
      app: Its web side.
      enrolment: Makes tokens.
      access: Its users.
      dispatcher, runner: What works behind.
    """

    app: ASGIApp
    enrolment: Enrolment
    access: AccessBook
    dispatcher: Dispatcher
    runner: Runner
    _stack: ExitStack

    def start(self) -> None:
        """Go on with every run that has not ended."""
        self.runner.start()

    def closing(self) -> None:
        """Answer the requests that are held: the end begins."""
        self.dispatcher.close()

    def close(self) -> None:
        """Let go of everything; runs go on at the next start.

        Runs end what they are committing; where the database keeps them from it for long, it is closed over them.
        """
        runs = threading.Thread(target=self.runner.close, name="hanse-closing", daemon=True)
        runs.start()
        runs.join(_GRACE_SECONDS)
        self._stack.close()
        runs.join(_GRACE_SECONDS)


def open_coordinator(settings: CoordinatorSettings) -> Coordinator:
    """Open database and blobs, and put the parts together; no run lives before `start`.

    Raises:
      SettingError: A URL is none.
      MissingExtraError: It needs a package that is not installed.
      StorageError: Something can't be opened or written, or is of a newer Hanse.
    """
    with ExitStack() as stack:
        coordinator = _put_together(settings, stack)
        coordinator._stack.push(stack.pop_all())
    return coordinator


def _put_together(settings: CoordinatorSettings, stack: ExitStack) -> Coordinator:
    database = open_database(settings.database or f"sqlite:///{settings.state / DATABASE}", told=LOGGER.warning)
    stack.callback(database.close)
    sites, access = DatabaseSiteBook(database), DatabaseAccessBook(database)
    runs, work = DatabaseRunBook(database), DatabaseWorkBook(database)
    store = BlobStore(settings.blobs or settings.state / BLOBS)
    uploads = Uploads(store, settings.state / SPOOL)
    stack.callback(uploads.close)
    dispatcher = Dispatcher(work, sites, runs, blobs=store)
    stack.callback(dispatcher.close)
    bureau = Bureau(
        runs=runs,
        sites=sites,
        work=work,
        blobs=store,
        dispatcher=dispatcher,
        open_journal=lambda run: DatabaseJournal(database, store, run),
        admit=admit_registered,
        ledger=settings.state / LEDGER,
    )
    runner = Runner(bureau)
    enrolment = Enrolment(
        address=settings.address,
        trust=settings.trust,
        authority=settings.authority,
        sites=sites,
        access=access,
        clock=settings.clock,
    )
    reading = Reading(work.open_items())

    async def send(ref: BlobRef, request: Request) -> Response:
        return await send_blob(store, ref.sha256, request)

    parts = Parts(
        federation=settings.federation,
        epoch=settings.epoch,
        tls_authority=settings.tls_authority,
        enrolment=enrolment,
        sites=sites,
        access=access,
        runs=runs,
        dispatcher=dispatcher,
        runner=runner,
        send_blob=send,
        handed=reading.handed,
        limits=settings.limits,
        clock=settings.clock,
    )
    guard = Guard(parts)
    blobs = blobs_routes(guard, store, uploads, may_read=reading.may_read, deltas=Deltas(store), limits=settings.limits)
    return Coordinator(
        app=make_app(parts, guard=guard, routers=[blobs]),
        enrolment=enrolment,
        access=access,
        dispatcher=dispatcher,
        runner=runner,
        _stack=ExitStack(),
    )
