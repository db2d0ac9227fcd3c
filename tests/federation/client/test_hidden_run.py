"""Runs whose updates are hidden, at a site: who takes part, as it was told once, and what it has agreed to by that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import HanseError, RefusedError, RunError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, TrainPhase
from hanse.core.params import Params
from hanse.federation import protocol
from hanse.federation.client.job_run import JobRun, Place
from hanse.federation.client.runtime import FixedRun, answers
from hanse.federation.client.site_config import site_config
from hanse.federation.identity.keys import SiteKey
from hanse.federation.identity.sum_signing import SumKey
from hanse.federation.negotiation import agree
from hanse.federation.protocol import (
    DescribeOrder,
    DescriptionReply,
    Peer,
    PreparedReply,
    PrepareOrder,
    RefusalReply,
    WorkItem,
)
from hanse.federation.wire import encode_phase, ref_of
from hanse.rounds.client_failure import failure
from tests.federation.client.test_job_run import job, patients

KEY, *OTHERS = (SiteKey.make() for _ in range(4))
STRANGE = SiteKey.make().public
SIGNER = SumKey(KEY)
HIDDEN = {
    "strategy": {"use": "fedavg", "weighting": "uniform"},
    "pipeline": {"stages": [{"use": "modular", "range": 1.0}], "aggregator": {"use": "secure_sum"}},
    "evaluate": {"clients": "none"},
}


def others(count: int = 2) -> list[Peer]:
    return [Peer(site=f"s{i}", key=key.public, clients=[f"s{i}"]) for i, key in enumerate(OTHERS[:count])]


class Here:
    """Site `north`, whose processes may be new ones."""

    def __init__(self, folder: Path, values: dict[str, Any] | None = None, **config: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "p.csv").write_text(patients("hospital", ["a", "b"]))
        self.folder, self.config = folder, {"data": {"path": "p.csv"}, **config}
        self.values = values or job(None, "hospital", cohort="everyone") | HIDDEN
        self.notes: list[str] = []
        self.run = self.new()
        self.described: DescriptionReply | None = None

    def new(self, signer: Any = SIGNER) -> JobRun:
        """As a new process."""
        sha256 = hashlib.sha256(json.dumps(self.values).encode()).hexdigest()
        place = Place(site="north", folder=self.folder / "run", job_sha256=sha256)
        config = site_config(self.config, folder=self.folder)
        self.run = JobRun(config, self.values, place, note=self.notes.append, signer=signer)
        return self.run

    def order(self, peers: Sequence[Peer] | None = None, number: int = 1, **changes: Any) -> PrepareOrder:
        self.described = self.described or self.run.describe(DescribeOrder())
        layout = agree({"north": self.described.layout}, data=self.values["data"]).layout
        own = Peer(site="north", key=KEY.public, clients=[card.id for card in self.described.clients])
        listed = [own, *others()] if peers is None else list(peers)
        counts = {"sites": len(listed), "clients": sum(len(peer.clients) for peer in listed)}
        return PrepareOrder(layout=layout, peers=listed, number=number, **{**counts, **changes})

    def own(self, *clients: str) -> Peer:
        return Peer(site="north", key=KEY.public, clients=list(clients or ("a", "b")))

    def train(self) -> list[Any]:
        """What the site answers to round 1."""
        start = Params.from_arrays({"w": np.zeros(2, dtype=np.float32)})
        phase = TrainPhase(round=1, broadcast=Broadcast(start), work=LocalWork())
        order, blobs = encode_phase(phase)
        item = WorkItem(id="w", run="run", job=ref_of(b""), clients=["a"], order=order)
        return [reply for reply, _ in answers(item, blobs.__getitem__, self.run, read_work=self.run.read_work)]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_site_remembers_who_takes_part(here: Here) -> None:
    assert isinstance(here.run.prepare(here.order()), PreparedReply)
    for run in (here.run, here.new()):
        assert run.peers().num_sites == 3
        assert run.peers().site_of("s1") == "s1"
        text = b"hanse secure sum: advert\n"
        assert run.signer is not None
        assert run.peers().verify("a", text, run.signer.sign(text))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peers": []}, "list of 0 sites has not this one"),
        ({"peers": others(3)}, "has not this one, `north`"),
        ({"sites": 7}, "4 clients of 7 sites take part, and lists 4 clients of 3 sites"),
        ({"clients": 9}, "9 clients of 3 sites take part, and lists 4 clients of 3 sites"),
    ],
)
def test_a_list_that_is_none_of_this_site_is_refused(here: Here, change: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        here.run.prepare(here.order(**change))
    with pytest.raises(RunError, match="before it had agreed"):
        here.run.peers()


def test_a_worker_without_a_key_takes_part_in_nothing_that_is_hidden(here: Here) -> None:
    with pytest.raises(RefusedError, match="this site's worker has no key to sign its part with"):
        here.new(signer=None).describe(DescribeOrder())


def test_before_it_begins_the_last_list_holds(here: Here) -> None:
    here.run.prepare(here.order(number=1))
    here.run.prepare(here.order([here.own(), *others(1)], number=2))
    for run in (here.run, here.new()):
        assert run.peers().num_sites == 2
        with pytest.raises(RefusedError, match="is number 1, and the site has agreed to number 2 since"):
            run.prepare(here.order(number=1))
        assert run.peers().num_sites == 2


def test_a_list_that_could_not_be_taken_leaves_the_one_before(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    from hanse.core.errors import DataError
    from hanse.federation.client import job_run

    here.run.prepare(here.order(number=1))

    def fail(*_: Any) -> None:
        raise DataError("the model does not fit")

    monkeypatch.setattr(job_run, "check_samples", fail)
    with pytest.raises(DataError, match="does not fit"):
        here.run.prepare(here.order([here.own(), *others(1)], number=2))
    assert here.run.peers().num_sites == 3


def test_after_it_has_begun_no_other_list_is_taken(here: Here) -> None:
    here.run.prepare(here.order(number=1))
    here.train()
    for run in (here.run, here.new()):
        for peers in ([here.own(), *others(1)], [here.own(), *others(3)], others(3)):
            with pytest.raises(RefusedError, match="this run has begun, with other sites, clients or keys"):
                run.prepare(here.order(peers, number=2))
        assert run.peers().num_sites == 3
    here.run.prepare(here.order(number=2))  # the same once more
    with pytest.raises(RefusedError, match="this run has begun"):
        here.run.prepare(here.order([here.own(), *others(1)], number=3))


def test_runs_that_hide_nothing_have_no_peers(tmp_path: Path) -> None:
    here = Here(tmp_path, job(None, "hospital"))
    here.run.prepare(here.order([], sites=2, clients=5))
    with pytest.raises(HanseError, match="hides no updates"):
        here.run.peers()


def test_federations_in_python_say_who_takes_part() -> None:
    class Runtime:
        class dataset:  # noqa: N801
            clients = ("s0",)

            @staticmethod
            def num_examples(client: str) -> int:
                return 3

    def make() -> Any:
        return Runtime

    run = FixedRun(make, signer=OTHERS[0], peers=others(2))
    assert run.peers().num_sites == 2
    layout = protocol.Layout()
    run.prepare(PrepareOrder(layout=layout, peers=others(3)))
    assert run.peers().num_sites == 3
    for unknowing in (FixedRun(make), FixedRun(make, signer=OTHERS[0]), FixedRun(make, peers=others(2))):
        with pytest.raises(RefusedError, match="nobody said whose keys"):
            unknowing.peers()
    with pytest.raises(RefusedError, match="has not this one"):
        FixedRun(make, signer=KEY, peers=others(2)).peers()


def plain(**changes: Any) -> dict[str, Any]:
    return job(None, "hospital", cohort="everyone", **changes)


def hidden(**aggregator: Any) -> dict[str, Any]:
    values = plain() | HIDDEN
    return values | {"pipeline": {**HIDDEN["pipeline"], "aggregator": {"use": "secure_sum", **aggregator}}}


def in_groups(**inner: Any) -> dict[str, Any]:
    """Five clients a round, in a group of three and one of two."""
    groups = {"groups": 2, "rule": "median", "attackers": 0, "sum": {"use": "secure_sum", "min_survivors": 2, **inner}}
    return hidden(use="sums_of_groups", **groups) | {"cohort": {"use": "fixed", "clients": ["a", "b", "c", "d", "e"]}}


@pytest.mark.parametrize(
    ("values", "sums", "words"),
    [
        (plain(), {"required": True}, "the job shows the coordinator each client's update"),
        (hidden(use="homomorphic_sum"), {}, "the job's clients share a key, so a coordinator that makes up one"),
        (hidden(active=False), {}, "`SecureSum` hides updates from a coordinator that follows the rules, and"),
        (hidden() | {"cohort": {"use": "uniform", "size": 4}}, {"min_cohort": 5}, "a round has 4 clients; this site"),
        (
            hidden() | {"cohort": {"use": "fixed", "clients": ["a", "b", "c"]}},
            {"min_cohort": 4},
            "a round has 3 clients",
        ),
        (
            in_groups(),
            {"min_cohort": 4},
            "a group of a round's clients has 2 clients; this site lets no sum of fewer than 4 be opened",
        ),
        (in_groups(active=False), {}, "`SecureSum` hides updates from a coordinator that follows the rules, and"),
    ],
)
def test_jobs_that_a_site_refuses_at_once(tmp_path: Path, values: Any, sums: dict[str, Any], words: str) -> None:
    here = Here(tmp_path, values, secure_sums=sums)
    with pytest.raises(RefusedError, match=words):
        here.run.describe(DescribeOrder())
    with pytest.raises(RefusedError, match=words):
        here.run.prepare(PrepareOrder(layout=protocol.Layout()))


@pytest.mark.parametrize(
    ("sums", "words"),
    [
        ({"min_cohort": 5}, "a round has 4 clients; this site lets no sum of fewer than 5 be opened"),
        ({"min_sites": 4}, "the run has 3 sites; this site adds its updates to sums of at least 4"),
        ({"peers": {"s0": STRANGE}}, "says that `s0` has the key .*; this site knows it by"),
        ({"peers": {"visby": OTHERS[0].public}}, "calls `s0` what this site knows as `visby`, by its key"),
        ({"peers": {"s0": OTHERS[0].public}, "only_peers": True}, "`s1` takes part, with the key .* does not know"),
    ],
)
def test_runs_that_a_site_refuses_to_get_ready_for(tmp_path: Path, sums: dict[str, Any], words: str) -> None:
    here = Here(tmp_path, secure_sums=sums)
    order = here.order()
    with pytest.raises(RefusedError, match=words):
        here.run.prepare(order)
    for run in (here.run, here.new()):
        with pytest.raises(RunError, match="before it had agreed"):
            run.peers()


@pytest.mark.parametrize(
    ("values", "sums"),
    [
        (plain(), {"min_cohort": 50, "min_sites": 9, "peers": {"s0": STRANGE}, "only_peers": True}),
        (hidden(), {"required": True, "min_cohort": 4, "min_sites": 3}),
        (hidden(active=False), {"active": False}),
        (hidden(use="homomorphic_sum"), {"active": False}),
        (hidden(use="homomorphic_sum"), {"peers": {f"s{i}": OTHERS[i].public for i in range(2)}, "only_peers": True}),
        (hidden(), {"peers": {f"s{i}": key.public for i, key in enumerate(OTHERS)}, "only_peers": True}),
        (hidden(), {"peers": {"s1": OTHERS[1].public, "elsewhere": STRANGE}}),
    ],
)
def test_what_suits_a_site_is_done(tmp_path: Path, values: Any, sums: dict[str, Any]) -> None:
    here = Here(tmp_path, values, secure_sums=sums)
    assert isinstance(here.run.prepare(here.order()), PreparedReply)


def test_a_stricter_site_toml_counts_for_a_run_that_was_agreed_to(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.run.prepare(here.order())
    here.config = {**here.config, "secure_sums": {"peers": {"s0": STRANGE}}}
    with pytest.raises(RefusedError, match="says that `s0` has the key"):
        here.new().peers()


def test_each_sum_has_clients_of_enough_sites(tmp_path: Path) -> None:
    """The coordinator chooses whom a round asks, and a sum of one site's own clients shows that site's data."""
    here = Here(tmp_path, secure_sums={"min_sites": 2})
    here.run.prepare(here.order())
    suits = here.run.sum_policy.suits(here.run.peers())
    assert suits(["a", "s0"]) == ""
    assert suits(["a", "b"]) == "they are of 1 site; `north` adds to sums of 2"
    assert suits(["a", "s0", "nobody"]) == "`nobody` is no client of this run"


def test_nobody_hears_how_many_examples_a_client_has(tmp_path: Path) -> None:
    for values, sizes in ((hidden(), [1, 1]), (plain(), [31, 31])):
        here = Here(tmp_path / str(sizes[0]), values)
        order = here.order([] if sizes[0] > 1 else None)
        assert here.described is not None
        assert [card.num_examples for card in here.described.clients] == sizes
        assert [card.num_examples for card in here.run.prepare(order).clients] == sizes


PRIVATE = {
    "strategy": {"use": "fedavg", "weighting": "uniform"},
    "pipeline": {"stages": [{"use": "clip", "norm": 1.0}]},
    "task": {"use": "logistic_regression", "preprocess": {"use": "standardize", "fit": "client"}},
    "privacy": {"mechanism": {"use": "gaussian", "noise_multiplier": 1.0}, "delta": 1e-5},
}


@pytest.mark.parametrize("values", [hidden(), plain() | PRIVATE, plain()], ids=["hidden", "private", "plain"])
def test_words_that_are_not_hanses_own_stay_at_the_site(
    tmp_path: Path, values: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = Here(tmp_path, values)
    open_ = "privacy" not in values and values["strategy"] != HIDDEN["strategy"]
    here.run.prepare(here.order([] if open_ or "privacy" in values else None))

    def fail(*_: Any) -> None:
        raise ValueError("could not convert 'Mrs Miller' to a number")

    monkeypatch.setattr(type(here.run), "admit", fail)
    (reply,) = here.train()
    assert ("Mrs Miller" in reply.message, "Mrs Miller" in reply.details) == (open_, open_)
    assert ("Mrs Miller" in caplog.text) != open_  # in the log of the run's process
    monkeypatch.setattr(here.run, "prepare", fail)
    order = here.order([] if open_ or "privacy" in values else None)
    item = WorkItem(id="w", run="run", job=ref_of(b""), clients=[], order=order)
    ((refused, _),) = answers(item, {}.__getitem__, here.run)
    assert isinstance(refused, RefusalReply)
    assert refused.reasons[0].startswith("ValueError")
    assert ("Mrs Miller" in refused.reasons[0]) == open_


def test_a_clients_own_failure_is_told_by_its_kind(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.run.prepare(here.order())

    class Answerer:
        def answer(self, phase: Any, clients: Sequence[str]) -> Any:
            try:
                raise KeyError("Mrs Miller")
            except KeyError as error:
                yield failure("a", 1, error)
            yield failure("b", 1, RefusedError("in Hanse's own words"))

    monkeypatch.setattr(here.run, "answerer", lambda run: Answerer())
    monkeypatch.setattr(here.run, "admit", lambda *_: {})
    told, own = here.train()
    assert told.message.startswith("KeyError; it is no error of Hanse's own")
    assert (told.error, told.details) == ("KeyError", "")
    assert own.message == "in Hanse's own words"
