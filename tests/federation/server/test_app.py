"""What leaves the application: messages, problems, and nothing else."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from hanse.core.errors import JobProblems, SettingError, StorageFullError
from hanse.federation.protocol import EventPage, LogLine, RunCard, SiteCard
from hanse.federation.server.limits import Limits, Rate
from tests.federation.server.conftest import TENSORS, World
from tests.federation.server.test_joining import problem

SUBMIT = json.dumps({"job": {"name": "wine"}, "key": "1" * 32})


@pytest.fixture
def admin(world: World) -> dict[str, str]:
    return world.as_user(world.token_of("admin"))


class TestRuns:
    @pytest.fixture
    def world(self, world_on_each: World) -> World:
        return world_on_each

    def test_submitting_twice_with_one_key_is_one_run(self, world: World, admin: dict[str, str]) -> None:
        cards = [
            RunCard.model_validate_json(world.http.post("/v1/runs", content=SUBMIT, headers=admin).content)
            for _ in range(2)
        ]
        assert cards[0] == cards[1]
        assert (cards[0].id, cards[0].submitter, cards[0].status) == ("wine", "admin", "queued")

    def test_events_come_by_page_and_are_awaited(self, world: World, admin: dict[str, str]) -> None:
        world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        world.runs.add_events("wine", [{"event": "Noted", "message": "first"}])
        first = EventPage.model_validate_json(world.http.get("/v1/runs/wine/events?wait=9", headers=admin).content)
        assert [event["message"] for event in first.events] == ["first"]
        assert world.bench.waits == []
        target = f"/v1/runs/wine/events?after={first.next}&wait=9"
        second = EventPage.model_validate_json(world.http.get(target, headers=admin).content)
        assert [event["message"] for event in second.events] == ["came while waiting"]
        assert world.bench.waits == [("wine", first.next, 9.0)]

    def test_nobody_waits_for_a_run_that_has_ended(self, world: World, admin: dict[str, str]) -> None:
        world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        world.runs.move("wine", "failed", reason="no", now=world.now)
        page = world.http.get("/v1/runs/wine/events?wait=9", headers=admin).json()
        assert (page["status"], page["events"], world.bench.waits) == ("failed", [], [])

    def test_logs_by_site(self, world: World, admin: dict[str, str]) -> None:
        world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        for site in ("north", "south"):
            world.join(site)
            line = LogLine(run="wine", number=1, time=world.now, text=f"hello from {site}")
            world.runs.add_logs(site, "5" * 32, [line], live_runs=frozenset(["wine"]))
        everything = world.http.get("/v1/runs/wine/logs", headers=admin).json()
        assert [line["text"] for line in everything["lines"]] == ["hello from north", "hello from south"]
        assert world.http.get(f"/v1/runs/wine/logs?after={everything['next']}", headers=admin).json()["lines"] == []
        south = world.http.get("/v1/runs/wine/logs?site=south", headers=admin).json()["lines"]
        assert [(line["site"], line["text"]) for line in south] == [("south", "hello from south")]

    def test_logs_of_a_run_that_hides_who_takes_part(self, world: World, admin: dict[str, str]) -> None:
        scientist = world.as_user(world.token_of("scientist", "anna"))
        world.http.post("/v1/runs", content=SUBMIT, headers=scientist)
        world.bench.hiding = True
        told = problem(world.http.get("/v1/runs/wine/logs", headers=scientist), 403)
        assert "what sites log would tell" in told.message
        assert world.http.get("/v1/runs/wine/logs", headers=admin).status_code == 200

    def test_tensors(self, world: World, admin: dict[str, str]) -> None:
        world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        assert world.http.get("/v1/runs/wine/tensors/last", headers=admin).content == TENSORS
        problem(world.http.get("/v1/runs/wine/tensors/best", headers=admin), 404)
        problem(world.http.get("/v1/runs/wine/tensors/worst", headers=admin), 400)
        problem(world.http.get("/v1/runs/wine/tensors/..%2F..%2Fetc", headers=admin), 404)

    def test_a_misspelt_run_is_named_with_the_nearest(self, world: World, admin: dict[str, str]) -> None:
        world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        assert "did you mean `wine`" in problem(world.http.get("/v1/runs/wien", headers=admin), 404).hint

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (SettingError("strategy.mu", "got -1; wanted 0 or more", hint="try 0.1"), 422),
            (JobProblems([SettingError("a", "b"), SettingError("c", "d")]), 422),
            (StorageFullError("the disk is full", hint="free some space"), 507),
        ],
    )
    def test_what_is_wrong_with_a_job_reaches_its_submitter(
        self, world: World, admin: dict[str, str], error: Any, status: int
    ) -> None:
        world.bench.fault = error
        found = problem(world.http.post("/v1/runs", content=SUBMIT, headers=admin), status)
        assert (found.error, found.message, found.hint) == (type(error).__name__, error.message, error.hint or "")


class TestSites:
    @pytest.fixture
    def world(self, world_on_each: World) -> World:
        return world_on_each

    def test_cards(self, world: World, admin: dict[str, str]) -> None:
        for name in ("away", "here", "new", "gone"):
            world.join(name)
        world.sites.seen({"away": world.now, "here": world.now})
        world.sites.revoke("gone")
        world.desk.at_work = {"here": ["item-1"]}
        cards = [SiteCard(**card) for card in world.http.get("/v1/sites", headers=admin).json()]
        assert {card.name: card.status for card in cards} == {
            "away": "away",
            "here": "connected",
            "new": "never seen",
            "gone": "revoked",
        }
        assert next(card.working for card in cards if card.name == "here") == ["item-1"]

    def test_an_invitation_lets_a_site_join(self, world: World, admin: dict[str, str]) -> None:
        from hanse.federation.identity.keys import SiteKey
        from tests.federation.server.conftest import Member

        body = json.dumps({"site": "clinic-west", "valid_hours": 2})
        token = world.http.post("/v1/invites", content=body, headers=admin).json()
        assert token["expires"] == world.now + 7200
        assert Member(world, "clinic-west", SiteKey.make()).enrol(token["token"]).status_code == 200

    def test_revoking_a_misspelt_site(self, world: World, admin: dict[str, str]) -> None:
        world.join("clinic-north")
        found = problem(world.http.post("/v1/sites/clinic-nort/revoke", headers=admin), 404)
        assert "clinic-north" in found.hint
        assert world.access.audited() == []

    @pytest.mark.parametrize("name", ["Clinic North", "..", "", "a/b", "x" * 64])
    def test_a_bad_name_is_refused(self, world: World, admin: dict[str, str], name: str) -> None:
        problem(world.http.post("/v1/invites", content=json.dumps({"site": name}), headers=admin), 400)


class TestErrors:
    def test_no_such_address(self, world: World) -> None:
        assert "/v1/openapi.json" in problem(world.http.get("/v1/nothing"), 404).hint
        problem(world.http.get("/v1/hello/"), 404)
        problem(world.http.get("/docs"), 404)
        problem(world.http.request("DELETE", "/v1/hello"), 405)

    def test_bad_parameters(self, world: World, admin: dict[str, str]) -> None:
        world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        assert "`after`" in problem(world.http.get("/v1/runs/wine/events?after=-1", headers=admin), 400).message
        assert "`wait`" in problem(world.http.get("/v1/runs/wine/events?wait=nan", headers=admin), 400).message

    def test_a_bug_shows_its_number_and_nothing_else(
        self, world: World, admin: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        world.bench.fault = RuntimeError("the secret is 42")
        logging.getLogger("hanse.coordinator").propagate = True
        with caplog.at_level(logging.ERROR, logger="hanse.coordinator"):
            answer = world.http.post("/v1/runs", content=SUBMIT, headers=admin)
        found = problem(answer, 500)
        assert "42" not in answer.text
        assert "Traceback" not in answer.text
        (record,) = [each for each in caplog.records if each.message == "bug"]
        assert record.number in found.message  # type: ignore[attr-defined]
        assert record.exc_info is not None

    def test_a_refused_token_is_not_repeated(self, world: World) -> None:
        token = world.token_of("admin")
        answer = world.http.get("/v1/runs", headers={"Authorization": f"Bearer {token}x"})
        assert token not in problem(answer, 401).model_dump_json()


class TestLimits:
    @pytest.mark.parametrize("declared", [True, False])
    def test_a_body_too_large_is_refused(self, world: World, admin: dict[str, str], declared: bool) -> None:
        piece = b"x" * 60_000
        content = piece * 10 if declared else [piece] * 10
        answer = world.http.request("POST", "/v1/runs", content=content, headers=admin)
        assert "279 kB" in problem(answer, 413).message

    def test_a_body_that_is_said_to_be_too_large_is_not_read(self, world: World, admin: dict[str, str]) -> None:
        headers = {**admin, "Content-Length": "999999999999999999999"}
        problem(world.http.request("POST", "/v1/runs", content=SUBMIT, headers=headers), 413)

    def test_users_that_ask_too_often_wait(self, world: World, tmp_path: Path) -> None:
        world = World(tmp_path, world.database, Limits(user_rate=Rate(0.5, 3)))
        with world.http:
            admin, other = world.as_user(world.token_of("admin")), world.as_user(world.token_of("auditor"))
            assert [world.http.get("/v1/me", headers=admin).status_code for _ in range(4)] == [200, 200, 200, 429]
            answer = world.http.get("/v1/me", headers=admin)
            assert "0.5 a second" in problem(answer, 429).message
            assert int(answer.headers["retry-after"]) == 2
            assert world.http.get("/v1/me", headers=other).status_code == 200

    def test_sites_that_ask_too_often_wait(self, world: World, tmp_path: Path) -> None:
        world = World(tmp_path, world.database, Limits(site_rate=Rate(0.1, 2)))
        with world.http:
            site = world.join()
            assert [site.sync().status_code for _ in range(3)] == [200, 200, 429]

    def test_strangers_that_ask_too_often_wait_and_keep_nobody_else(self, world: World, tmp_path: Path) -> None:
        world = World(tmp_path, world.database, Limits(address_rate=Rate(0.1, 5)))
        with world.http:
            site = world.join()
            for _ in range(10):
                last = world.http.get("/v1/runs", headers={"Authorization": "Bearer guess"})
            problem(last, 429)
            assert site.sync().status_code == 200
            world.http.address = "203.0.113.8"
            problem(world.http.get("/v1/runs"), 401)


def test_a_body_that_stands_still_is_given_up() -> None:
    import asyncio

    from starlette.requests import Request

    from hanse.federation.server.answers import Refusal
    from hanse.federation.server.limits import read_body

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def read() -> bytes:
        request = Request({"type": "http", "headers": [], "method": "POST", "path": "/"}, receive)
        return await read_body(request, most=10, idle_seconds=0.01, what="a job")

    with pytest.raises(Refusal, match="no byte of a job arrived for") as caught:
        asyncio.run(read())
    assert caught.value.status == 408


def test_the_committed_openapi_document_is_current() -> None:
    from scripts.openapi import TARGET, document

    assert TARGET.read_text(encoding="utf-8") == document(), "write it anew: python scripts/openapi.py"


def test_the_openapi_document_is_served(world: World) -> None:
    served = world.http.get("/v1/openapi.json").json()
    assert served["openapi"].startswith("3.")
    assert "/v1/sync" in served["paths"]
    references = set(_references(served))
    assert references <= {f"#/components/schemas/{name}" for name in served["components"]["schemas"]}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for item in value.values() for found in _references(item)]
    return [found for item in value for found in _references(item)] if isinstance(value, list) else []
