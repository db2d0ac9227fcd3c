"""A coordinator's web side with real identity and a real database, and stand-ins for what works behind it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from hanse.core.errors import RunNotFoundError
from hanse.federation.identity.authority import Authority
from hanse.federation.identity.enrolment import enrol_request
from hanse.federation.identity.keys import SiteKey
from hanse.federation.identity.signing import EMPTY_DIGEST, RequestSigner, digest_of
from hanse.federation.identity.tokens import PUBLIC, JoinToken
from hanse.federation.protocol import (
    VERSION,
    VERSION_HEADER,
    AccessRequest,
    BlobRef,
    InviteRequest,
    Message,
    Role,
    RunCard,
    RunExport,
    SubmitRequest,
    SyncRequest,
    SyncResponse,
)
from hanse.federation.server.app import make_app
from hanse.federation.server.database.access_book import DatabaseAccessBook
from hanse.federation.server.database.engine import Database, open_database
from hanse.federation.server.database.run_book import DatabaseRunBook
from hanse.federation.server.database.site_book import DatabaseSiteBook
from hanse.federation.server.enrolment import Enrolment
from hanse.federation.server.limits import Limits
from hanse.federation.server.parts import Parts
from hanse.federation.server.ports import Run
from tests.federation.server.asgi import Caller

NOW = 1_800_000_000.0
EPOCH = "e" * 32
ROLES: tuple[Role, ...] = ("admin", "operator", "scientist", "auditor")
TENSORS = b"not really tensors"


class Desk:
    """Stands in for the dispatcher: keeps what sites say."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, SyncRequest]] = []
        self.forgotten: list[str] = []
        self.heard: list[str] = []
        self.at_work: dict[str, Sequence[str]] = {}

    async def sync(self, site: str, request: SyncRequest) -> SyncResponse:
        self.calls.append((site, request))
        return SyncResponse(poll_s=4.0, heartbeat_s=2.0)

    def working(self) -> Mapping[str, Sequence[str]]:
        return self.at_work

    def touch(self, site: str) -> None:
        self.heard.append(site)

    def forget(self, site: str) -> None:
        self.forgotten.append(site)


@dataclass
class Bench:
    """Stands in for the runner: keeps runs in the book, and runs nothing."""

    book: DatabaseRunBook
    stopped: list[str] = field(default_factory=list)
    waits: list[tuple[str, int, float]] = field(default_factory=list)
    fault: Exception | None = None
    hiding: bool = False

    def hides_cohorts(self, run: str) -> bool:
        return self.hiding

    def submit(self, request: SubmitRequest, *, submitter: str) -> str:
        if self.fault is not None:
            raise self.fault
        name = request.name or str(request.job.get("name", "run"))
        blob = BlobRef(sha256="a" * 64, size=1)
        run = Run(
            id=name,
            status="queued",
            submitter=submitter,
            key=request.key,
            job=request.job,
            job_blob=blob,
            created=NOW,
        )
        return self.book.submit(run).id

    def stop(self, run: str) -> None:
        self.stopped.append(run)

    def cards(self) -> list[RunCard]:
        return [self.card(run.id) for run in self.book.runs()]

    def card(self, run: str) -> RunCard:
        found = self.book.run(run)
        if found is None:
            raise RunNotFoundError(f"no run `{run}`")
        return RunCard(id=found.id, status=found.status, submitter=found.submitter, created=found.created)

    def export(self, run: str) -> RunExport:
        last = BlobRef(sha256="b" * 64, size=len(TENSORS))
        return RunExport(facts={"job": {"name": run}}, rounds=[{"round": 0}], last=last)

    async def wait(self, run: str, *, after: int, seconds: float) -> None:
        self.waits.append((run, after, seconds))
        self.book.add_events(run, [{"event": "Noted", "message": "came while waiting"}])


async def send_blob(ref: BlobRef, request: Request) -> Response:
    return Response(TENSORS, media_type="application/octet-stream")


class World:
    """The coordinator, its callers, and the time."""

    def __init__(self, folder: Path, database: Database, limits: Limits | None = None) -> None:
        self.now = NOW
        self.database = database
        self.sites = DatabaseSiteBook(self.database)
        self.access = DatabaseAccessBook(self.database)
        self.runs = DatabaseRunBook(self.database)
        self.desk, self.bench = Desk(), Bench(self.runs)
        self.authority = Authority.open(folder / "state", clock=self.clock)
        self.enrolment = Enrolment(
            address="https://fl.example.org:8443",
            trust=PUBLIC,
            authority=self.authority,
            sites=self.sites,
            access=self.access,
            clock=self.clock,
        )
        self.parts = Parts(
            federation="test",
            epoch=EPOCH,
            tls_authority=self.authority.certificate,
            enrolment=self.enrolment,
            sites=self.sites,
            access=self.access,
            runs=self.runs,
            dispatcher=self.desk,
            runner=self.bench,
            send_blob=send_blob,
            limits=limits or Limits(),
            clock=self.clock,
        )
        self.http = Caller(make_app(self.parts))

    def clock(self) -> float:
        return self.now

    def token_of(self, role: Role, user: str = "") -> str:
        """A new access token, made as `hanse serve` makes the first."""
        return self.enrolment.grant(AccessRequest(user=user or role, role=role)).token

    def as_user(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}", VERSION_HEADER: str(VERSION)}

    def join(self, name: str = "clinic-north") -> Member:
        """A site that joined by the address that sites join by."""
        token = self.enrolment.invite(InviteRequest(site=name)).token
        member = Member(self, name, SiteKey.make())
        response = member.enrol(token)
        assert response.status_code == 200, response.text
        return member


@dataclass
class Member:
    """A site as its requests show it."""

    world: World
    name: str
    key: SiteKey

    def enrol(self, token: str) -> Any:
        request = enrol_request(JoinToken.parse(token), self.key)
        return self.world.http.post(
            "/v1/enrol", content=request.model_dump_json(), headers={VERSION_HEADER: str(VERSION)}
        )

    def headers(self, method: str, target: str, body: bytes = b"", **changes: Any) -> dict[str, str]:
        signer = RequestSigner(changes.get("site", self.name), self.key, clock=self.world.clock)
        digest = digest_of(body) if body else EMPTY_DIGEST
        return signer.sign(method, target, epoch=changes.get("epoch", EPOCH), digest=digest)

    def post(self, target: str, message: Message | None = None, **changes: Any) -> Any:
        body = b"" if message is None else message.model_dump_json().encode()
        return self.world.http.post(target, content=body, headers=self.headers("POST", target, body, **changes))

    def sync(self, **changes: Any) -> Any:
        return self.post("/v1/sync", SyncRequest(session="5" * 32, number=1), **changes)


@pytest.fixture
def world(tmp_path: Path, _sqlite_template: Path) -> Iterator[World]:
    """A coordinator's web side on SQLite."""
    path = tmp_path / "hanse.sqlite"
    shutil.copyfile(_sqlite_template, path)
    database = open_database(f"sqlite:///{path}")
    made = World(tmp_path, database)
    with made.http:
        yield made
    database.close()


@pytest.fixture
def world_on_each(tmp_path: Path, database: Database) -> Iterator[World]:
    """The same on SQLite and on PostgreSQL."""
    made = World(tmp_path, database)
    with made.http:
        yield made
