"""Privacy at a site: what is charged before it leaves, what is refused, and where its noise comes from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import HanseError, MissingExtraError
from hanse.core.messages import Broadcast, ClientFailure, EvaluatePhase, Reply, StatisticsPhase, TrainPhase, Update
from hanse.core.params import Params
from hanse.federation import protocol
from hanse.federation.client import run_account
from hanse.federation.client.job_run import JobRun, Place
from hanse.federation.client.runtime import answers
from hanse.federation.client.site_config import site_config
from hanse.federation.client.site_files import LEDGER, SECRET
from hanse.federation.client.site_ledger import WITHOUT, Charged, SiteLedger, account_of, scope_of
from hanse.federation.negotiation import agree
from hanse.federation.protocol import DescribeOrder, PreparedReply, PrepareOrder, RefusalReply, WorkItem
from hanse.federation.wire import decode_reply, encode_phase, ref_of
from hanse.jobs.assemble import build_job
from hanse.jobs.job import job_from_values
from hanse.jobs.parts import build_parts
from hanse.privacy.accountant import epsilon
from hanse.privacy.events import Gaussian
from hanse.privacy.ledger import LedgerEntry, PrivacyLedger
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.privacy import secret_file
from tests.federation.client.asked_site import Site

JOB: dict[str, Any] = {
    "rounds": 4,
    "seed": 3,
    "data": {"use": "wine", "partition": {"use": "iid", "clients": 3}, "split": {"test": 0.0}},
    "task": {"use": "classification", "model": "linear", "preprocess": "none"},
    "strategy": {"use": "fedavg", "weighting": "uniform"},
    "evaluate": {"clients": "none"},
}
CLIP = {"stages": [{"use": "clip", "norm": 0.5}]}
LOCAL = {"stages": [{"use": "local_gaussian", "norm": 0.5, "noise_multiplier": 4.0}]}


def central(noise: float = 4.0, **changes: Any) -> dict[str, Any]:
    told = {"mechanism": {"use": "gaussian", "noise_multiplier": noise}, "delta": 1e-5}
    return {**JOB, "pipeline": CLIP, "privacy": told, **changes}


def local(**changes: Any) -> dict[str, Any]:
    return {**JOB, "pipeline": LOCAL, "privacy": {"delta": 1e-5}, **changes}


def correlated() -> dict[str, Any]:
    mechanism = {"use": "tree", "noise_multiplier": 6.0}
    return central(privacy={"mechanism": mechanism, "delta": 1e-5}, cohort={"use": "cyclic", "size": 1})


def budget(epsilon: float, **more: Any) -> dict[str, Any]:
    return {"budgets": [{"epsilon": epsilon, "delta": 1e-5, **more}]}


class OneSite:
    """A site in a folder, asked without a network; each `ask` is a process of its own."""

    def __init__(self, folder: Path, privacy: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = site_config({"data": {"simulate": "1/1"}, "privacy": dict(privacy)}, folder=folder)
        self.notes: list[str] = []

    def run(self, values: Mapping[str, Any], run: str) -> JobRun:
        sha256 = hashlib.sha256(json.dumps(values).encode()).hexdigest()
        place = Place(site="north", folder=self.folder / "runs" / run, job_sha256=sha256, ledger=self.folder / LEDGER)
        return JobRun(self.config, values, place, note=self.notes.append)

    def prepare(
        self, values: Mapping[str, Any], run: str = "one", *, submitter: str = "ada"
    ) -> PreparedReply | RefusalReply:
        at_site = self.run(values, run)
        described = self._own(at_site, DescribeOrder(submitter=submitter))
        if isinstance(described, RefusalReply):
            return described
        assert isinstance(described, protocol.DescriptionReply)
        layout = agree({"north": described.layout}, data=values["data"]).layout
        reply = self._own(at_site, PrepareOrder(layout=layout, submitter=submitter, sites=1, clients=3))
        assert isinstance(reply, PreparedReply | RefusalReply)
        return reply

    def _own(self, at_site: JobRun, order: DescribeOrder | PrepareOrder) -> protocol.Reply:
        item = WorkItem(id="w", run="x", job=ref_of(b""), clients=[], order=order)
        ((reply, _),) = answers(item, lambda _: b"", at_site)
        return reply

    def ask(self, values: Mapping[str, Any], phase: Any, clients: list[str], *, run: str = "one") -> dict[str, Reply]:
        order, blobs = encode_phase(phase)
        at_site = self.run(values, run)
        item = WorkItem(id="w", run="x", job=ref_of(b""), clients=clients, order=order)
        found = answers(item, blobs.__getitem__, at_site, read_work=at_site.read_work)
        replies = (decode_reply(reply, lambda _, content=content: content or b"") for reply, content in found)
        return {reply.client: reply for reply in replies}

    def train(
        self, values: Mapping[str, Any], number: int, clients: list[str], *, run: str = "one", shift: float = 0.0
    ) -> dict[str, Reply]:
        return self.ask(values, train(values, number, shift=shift), clients, run=run)

    def entries(self, unit: str = "client") -> tuple[LedgerEntry, ...]:
        return PrivacyLedger(self.folder / LEDGER, scope=scope_of("data", unit)).entries()

    def charged(self, unit: str = "client") -> list[tuple[str, int, str]]:
        found = [Charged.of(entry.key) for entry in self.entries(unit)]
        return [(charged.run, charged.round, charged.client) for charged in found]

    def spent(self, client: str, requester: str | None = None) -> float:
        ledger = SiteLedger(self.folder / LEDGER, self.config.privacy, dataset="data", unit="client").ledger
        return ledger.spent(delta=1e-5, account=account_of(client, requester)).epsilon


def train(values: Mapping[str, Any], number: int, *, shift: float = 0.0) -> TrainPhase:
    strategy = build_parts(job_from_values(dict(values))).strategy
    params = model(values)
    moved = params.with_vector(params.numpy() + np.float32(shift))
    return TrainPhase(round=number, broadcast=Broadcast(params=moved), work=strategy.local_work(number), cohort=3)


def model(values: Mapping[str, Any]) -> Params:
    simulation = build_job(job_from_values({**values, "cohort": "everyone", "privacy": {}, "pipeline": {}})).simulation
    return simulation.task.init_params(3)


CLIENTS = ["client-0", "client-1", "client-2"]


@pytest.fixture(scope="module", autouse=True)
def names() -> None:
    CLIENTS[:] = build_job(job_from_values(JOB)).simulation.dataset.clients


def test_every_update_is_charged_before_it_leaves_and_once(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(8.0))
    values = central()
    assert isinstance(site.prepare(values), PreparedReply)
    assert site.charged() == [], "nothing has left yet"
    first = site.train(values, 1, CLIENTS[:2])
    assert all(isinstance(reply, Update) for reply in first.values())
    assert site.charged() == [("one", 1, CLIENTS[0]), ("one", 1, CLIENTS[1])]
    site.train(values, 1, CLIENTS[:2])
    site.train(values, 1, CLIENTS[1:])
    assert site.charged()[2:] == [("one", 1, CLIENTS[2])], "only who had not answered yet is charged"
    site.train(values, 1, CLIENTS[:1], shift=1.0)
    assert site.charged()[3:] == [("one", 1, CLIENTS[0])], "the same round from another model is another release"


def test_where_nothing_can_be_accounted_for_noise_of_the_sites_own_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise MissingExtraError("accounting", extra="privacy")

    monkeypatch.setattr(run_account, "settle_privacy", missing)
    shares = {"mechanism": {"use": "distributed", "noise_multiplier": 4.0}, "delta": 1e-5}
    distributed = {**JOB, "pipeline": CLIP, "privacy": shares, "cohort": {"use": "uniform", "size": 3}}
    for values in (distributed, local()):
        assert isinstance(OneSite(tmp_path / "shares", {}).prepare(values), RefusalReply)
    trusting = OneSite(tmp_path / "central", {})
    assert isinstance(trusting.prepare(central()), PreparedReply)
    assert any("not accounted for here" in note for note in trusting.notes)


def test_a_charge_without_a_reply_is_no_second_charge(tmp_path: Path) -> None:
    """Killed between the two: the reply was never made, and the same question is asked again."""
    site = OneSite(tmp_path, budget(8.0))
    for values in (central(), local()):
        run = values["privacy"].get("mechanism", {}).get("use", "local")
        site.prepare(values, run)
        order, blobs = encode_phase(train(values, 1))
        at_site = site.run(values, run)
        item = WorkItem(id="w", run="x", job=ref_of(b""), clients=CLIENTS, order=order)
        lost = answers(item, blobs.__getitem__, at_site, read_work=at_site.read_work)
        next(lost)
        lost.close()
        before = site.entries()
        site.train(values, 1, CLIENTS, run=run)
        after = site.entries()
        assert after[: len(before)] == before
        assert [Charged.of(entry.key).client for entry in after if Charged.of(entry.key).run == run] == CLIENTS


def test_two_runs_compose_and_the_third_is_refused_before_it_begins(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(3.5))
    values = central()
    costs = []
    for run in ("one", "two"):
        assert isinstance(site.prepare(values, run), PreparedReply)
        for number in range(1, 5):
            site.train(values, number, CLIENTS, run=run)
        costs.append(site.spent(CLIENTS[0]))
    one, two = costs
    assert one == epsilon(Gaussian(noise_multiplier=2.0), 1e-5), "four releases of noise multiplier 4 are one of 2"
    assert one < two < 3.5
    assert any(f"this run brings all runs with `{CLIENTS[0]}` from ε = 0 to {one:.4g}" in note for note in site.notes)
    refused = site.prepare(values, "three")
    assert isinstance(refused, RefusalReply)
    assert "this site's privacy budget has no room for it" in refused.reasons[0]
    assert f"ε = {two:.4g} of ε = 3.5, δ = 1e-05 is spent" in refused.reasons[0]
    assert "would ask a client 4 times" in refused.reasons[0]
    assert len(site.entries()) == 2 * 4 * 3


def test_what_a_coordinator_asks_beyond_the_plan_is_refused_client_by_client(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(2.5))
    values = central(rounds=5)
    assert isinstance(site.prepare(values), PreparedReply)
    for number in range(1, 6):
        site.train(values, number, CLIENTS[:1])
    replies = site.train(values, 5, CLIENTS[:2], shift=0.5)  # once more, with another model
    refused, fine = replies[CLIENTS[0]], replies[CLIENTS[1]]
    assert isinstance(fine, Update), "each client has an account of its own"
    assert isinstance(refused, ClientFailure)
    assert refused.kind == "RefusedError"
    assert refused.message.startswith("round 5: this site's privacy budget has no room for it: ε = 2.258 of ε = 2.5")
    assert site.spent(CLIENTS[0]) <= 2.5


def test_budgets_per_requester_and_of_all_together(tmp_path: Path) -> None:
    told = {"epsilon": 2.5, "delta": 1e-5}
    site = OneSite(tmp_path, {"budgets": [{"requester": "each", **told}, {**told, "epsilon": 3.5}]})
    values = central()
    for run, who, fits in (("a", "ada", True), ("b", "ada", False), ("c", "bob", True), ("d", "eve", False)):
        assert isinstance(site.prepare(values, run, submitter=who), PreparedReply) == fits, run
        if fits:
            for number in range(1, 5):
                site.train(values, number, CLIENTS, run=run)
    assert site.spent(CLIENTS[0], "ada") == site.spent(CLIENTS[0], "bob") < site.spent(CLIENTS[0])
    only_ada = OneSite(tmp_path / "other", budget(9.0, requester="ada"))
    refused = only_ada.prepare(values, submitter="bob")
    assert isinstance(refused, RefusalReply)
    assert refused.reasons == ["this site has no privacy budget for what `bob` asks of its data `data`"]


@pytest.mark.parametrize(
    ("values", "privacy", "words"),
    [
        (JOB, budget(8.0), "demands privacy of every job, and this one promises none"),
        (JOB, {"require": True}, "demands privacy of every job, and this one promises none"),
        (central(), {"coordinator_noise": False}, "the coordinator is to add this job's noise"),
        (central(), budget(8.0, unit="example"), "protect each example, and the job protects each client"),
        (central(), budget(8.0, dataset="other"), "no privacy budget for what `ada` asks of its data `data`"),
        (central(), budget(0.5), "no room"),
        (local(), budget(1.0), "no room"),
        (local(privacy={"budget": {"epsilon": 1.0, "delta": 1e-5}}), budget(8.0), "4 rounds with this noise cost"),
        (central(evaluate={"clients": "all"}), budget(8.0), "metrics on clients' own examples would be told"),
    ],
)
def test_refusals_before_anything_is_computed(
    tmp_path: Path, values: dict[str, Any], privacy: dict[str, Any], words: str
) -> None:
    site = OneSite(tmp_path, privacy)
    refused = site.prepare(values)
    assert isinstance(refused, RefusalReply)
    assert words in " ".join(refused.reasons)
    assert site.charged() == []


def test_noise_that_spans_rounds_is_charged_once_for_each_client(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(9.0))
    values = correlated()
    assert isinstance(site.prepare(values), PreparedReply)
    for number in (1, 2, 3):
        site.train(values, number, [CLIENTS[number - 1]])
        site.train(values, number, [CLIENTS[0]])
    assert sorted(site.charged()) == [("one", 0, client) for client in sorted(CLIENTS)]


def test_a_site_with_a_budget_answers_nothing_but_private_training(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(8.0))
    values = central()
    site.prepare(values)
    for phase in (EvaluatePhase(round=1, params=model(values), split="train"), StatisticsPhase()):
        (reply,) = site.ask(values, phase, CLIENTS[:1]).values()
        assert isinstance(reply, ClientFailure)
        assert "answers no questions about its data beside private training" in reply.message


def test_runs_that_promise_nothing_are_remembered_and_count_for_no_budget(tmp_path: Path) -> None:
    site = OneSite(tmp_path, {})
    assert isinstance(site.prepare(JOB), PreparedReply)
    for number in (1, 2):
        site.train(JOB, number, CLIENTS[:2])
    assert site.charged(WITHOUT) == [("one", 0, CLIENTS[0]), ("one", 0, CLIENTS[1])]
    assert site.charged() == []
    site.prepare(central(), "two")
    site.train(central(), 1, CLIENTS[:1], run="two")
    assert site.charged() == [("two", 1, CLIENTS[0])], "kept also where no budget bounds it"


# --- where noise comes from ---------------------------------------------------------------------------------------


def delta_of(reply: Reply) -> np.ndarray:
    assert isinstance(reply, Update)
    return reply.delta.numpy()


@pytest.mark.parametrize("values", [local(), central()], ids=["local", "central"])
def test_what_a_private_job_never_asks_is_not_answered(tmp_path: Path, values: dict[str, Any]) -> None:
    """Of a site without a budget of its own, too: local noise is to hold whoever the coordinator is."""
    site = OneSite(tmp_path, {})
    site.prepare(values)
    client = CLIENTS[0]
    asked = (EvaluatePhase(round=1, params=model(values), split="train"), StatisticsPhase(), train(values, 5))
    for phase, words in zip(
        asked, ["without noise", "without noise", "for 4 rounds, and this is round 5"], strict=True
    ):
        reply = site.ask(values, phase, [client])[client]
        assert isinstance(reply, ClientFailure)
        assert words in reply.message


def test_a_run_is_held_to_its_own_promise_however_often_its_coordinator_asks(tmp_path: Path) -> None:
    """Of a site without a budget of its own."""
    site = OneSite(tmp_path, {})
    values = local(pipeline={"stages": [{"use": "local_gaussian", "norm": 0.5}]}, rounds=2)
    values["privacy"] = {"budget": {"epsilon": 3.0, "delta": 1e-5}}
    site.prepare(values)
    client = CLIENTS[0]
    for number in (1, 1, 2):  # the first once more, as after a crash
        assert isinstance(site.train(values, number, [client])[client], Update)
    again = site.train(values, 2, CLIENTS[:2], shift=0.5)
    refused = again[client]
    assert isinstance(refused, ClientFailure)
    assert "by this run, whose job promises no more," in refused.message
    assert isinstance(again[CLIENTS[1]], Update), "it was asked for the first time"
    assert site.spent(client) <= 3.0
    site.prepare(values)
    assert isinstance(site.train(values, 1, [client])[client], Update), "another run has a promise of its own"


def test_the_same_question_is_answered_with_the_same_bits_and_any_other_with_other_noise(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(50.0))
    values = local()
    site.prepare(values)
    client = CLIENTS[0]
    first = delta_of(site.train(values, 1, [client])[client])
    again = delta_of(site.train(values, 1, CLIENTS)[client])
    np.testing.assert_array_equal(first, again)
    others = [
        delta_of(site.train(values, 2, [client])[client]),
        delta_of(site.train(values, 1, [client], shift=1e-6)[client]),
        delta_of(site.train(values, 1, CLIENTS[1:2])[CLIENTS[1]]),
    ]
    site.prepare(values)  # the run of this name begins anew, perhaps at another coordinator
    others.append(delta_of(site.train(values, 1, [client])[client]))
    for other in others:
        assert not np.any(first == other)
    assert [number for _, number, who in site.charged() if who == client] == [1, 2, 1, 1]


def test_a_changed_update_gets_other_noise_and_is_charged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer is not what it was, another version or another chip, and the difference would show without noise."""
    site = OneSite(tmp_path, budget(50.0))
    values = local()
    site.prepare(values)
    client = CLIENTS[0]
    first = delta_of(site.train(values, 1, [client])[client])
    whole = ClientRuntime._update

    def nudged(self: ClientRuntime, phase: TrainPhase, result: Any) -> Update:
        vector = result.delta.numpy().copy()
        vector[0] += np.float32(1e-6)
        return whole(self, phase, replace(result, delta=result.delta.with_vector(vector)))

    monkeypatch.setattr(ClientRuntime, "_update", nudged)
    other = delta_of(site.train(values, 1, [client])[client])
    assert not np.any(first == other)
    assert site.charged() == [("one", 1, client)] * 2


def test_the_key_is_for_its_owner_alone_and_in_nothing_that_is_told(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(50.0))
    values = local()
    site.prepare(values)
    path = tmp_path / "runs" / "one" / SECRET
    assert path.stat().st_mode & 0o777 == 0o600
    secret = json.loads(path.read_text())["key"]
    assert len(secret) == 64
    site.train(values, 1, CLIENTS)
    told = [str(entry) for entry in site.entries()] + site.notes
    assert not any(secret in text for text in told)
    assert secret.encode() not in (tmp_path / LEDGER).read_bytes()
    for damaged in (
        f'{{"version": 1, "key": "{secret}0"}}',
        f'{{"key": "{secret}',
        "[]",
        f'{{"version": 1, "kye": "{secret}"}}',
    ):
        path.write_text(damaged)
        (reply,) = site.train(values, 2, CLIENTS[:1]).values()
        assert isinstance(reply, ClientFailure)
        assert "is damaged" in reply.message
        assert secret[:8] not in reply.message + reply.details
    path.chmod(0o644)
    (reply,) = site.train(values, 2, CLIENTS[:1]).values()
    assert isinstance(reply, ClientFailure)
    assert "others may read it" in reply.message


def test_a_key_that_is_gone_makes_another_run_that_is_charged_as_one(tmp_path: Path) -> None:
    site = OneSite(tmp_path, budget(50.0))
    values = local()
    site.prepare(values)
    first = delta_of(site.train(values, 1, CLIENTS[:1])[CLIENTS[0]])
    (tmp_path / "runs" / "one" / SECRET).unlink()
    again = delta_of(site.train(values, 1, CLIENTS[:1])[CLIENTS[0]])
    assert not np.any(first == again)
    assert len(site.charged()) == 2


def test_nothing_leaves_when_nothing_can_be_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = OneSite(tmp_path, budget(50.0))
    for values in (central(), local()):
        site.prepare(values)
        (tmp_path / LEDGER).write_bytes(b"no database at all, and far longer than a header" * 9)
        replies = site.train(values, 1, CLIENTS)
        assert all(isinstance(reply, ClientFailure) for reply in replies.values())
        assert all("is damaged" in reply.message for reply in replies.values() if isinstance(reply, ClientFailure))
        (tmp_path / LEDGER).unlink()


def test_a_key_is_on_the_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(secret_file.os, "fsync", lambda handle: (synced.append("key"), sync(handle))[1])
    OneSite(tmp_path, budget(50.0)).prepare(local())
    assert synced


# --- real processes -----------------------------------------------------------------------------------------------


def test_a_killed_process_says_the_same_again_and_is_charged_once(make_site: Any, tmp_path: Path) -> None:
    job = {
        "rounds": 3,
        "data": {"use": "table", "target": "bmi", "drop": ["ill"], "group": ["ward"], "split": {"test": 0.0},
                 "partition": {"use": "natural", "column": "ward"}},
        "task": {"use": "site_methods:make", "mode": "kill once", "flag": str(tmp_path / "flag"), "width": 2},
        "strategy": {"use": "fedavg", "weighting": "uniform"},
        "evaluate": {"clients": "none"},
        "pipeline": LOCAL,
        "privacy": {"delta": 1e-5},
    }  # fmt: skip
    site: Site = make_site(job=job, privacy=budget(20.0))
    site.prepare()
    zeros = Params.from_arrays({"w": np.zeros(2, dtype=np.float32)})
    phase = TrainPhase(round=1, broadcast=Broadcast(zeros), work=build_parts_of_fedavg(), cohort=2)
    both = ["ward-a", "ward-b"]
    first = {reply.client: delta_of(reply) for reply in site.ask(phase, both)}
    again = {reply.client: delta_of(reply) for reply in site.ask(phase, both)}
    assert (tmp_path / "flag").exists(), "the process was killed"
    for client in both:
        np.testing.assert_array_equal(first[client], again[client])
    entries = PrivacyLedger(site.folder / LEDGER, scope=scope_of("data", "client")).entries()
    assert [Charged.of(entry.key).client for entry in entries] == both
    key = site.folder / "runs" / "run" / SECRET
    assert key.is_file()
    site.worker.close()
    assert key.is_file(), "the site stops, and the run goes on"
    site.worker.keep_only(["run"])
    assert key.is_file()
    site.worker.keep_only([])
    assert not key.exists()


def build_parts_of_fedavg() -> Any:
    return build_parts(job_from_values({**JOB, "pipeline": {}})).strategy.local_work(1)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["*", "each", "ada", "", "Ü"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["budgets", "require", "requester", "dataset", "epsilon", "delta", "unit", "dleta"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_stands_under_privacy_is_read_or_refused_in_words(values: Any) -> None:
    try:
        config = site_config({"privacy": values})
    except HanseError as error:
        assert "privacy" in str(error)  # noqa: PT017 - not every example raises
    else:
        assert all(budget.epsilon > 0 for budget in config.privacy.budgets)


def test_the_same_file_read_in_another_way_is_another_question(tmp_path: Path) -> None:
    site = OneSite(tmp_path, {"budgets": [{"epsilon": 50.0, "delta": 1e-5}]})
    values = central()
    site.prepare(values)
    for read in ({}, {}, {"rename": {"a": "b"}}):
        table = {"simulate": "1/1", **read}
        site.config = site_config({"data": table, "privacy": site.config.privacy.model_dump()}, folder=tmp_path)
        site.train(values, 1, CLIENTS[:1])
    assert len(site.charged()) == 2
