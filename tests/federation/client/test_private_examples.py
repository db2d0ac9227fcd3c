"""A site whose job hides single examples does not believe its coordinator how much noise that takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import PrivacyError
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, ClientFailure, EvaluatePhase, StatisticsPhase, TrainPhase, Update
from hanse.core.params import Params
from hanse.federation.negotiation import schema_from_card
from hanse.federation.protocol import DescribeOrder, PreparedReply, PrepareOrder
from hanse.jobs.assemble import build_job
from hanse.jobs.job import job_from_values
from hanse.jobs.parts import build_parts
from tests.federation.client.test_job_run import Federation, at_site, job
from tests.federation.client.test_site_privacy import OneSite, train

ROUNDS = 3
PRIVACY = {
    "unit": "example",
    "mechanism": {"use": "dp_sgd", "clip_norm": 1.0},
    "budget": {"epsilon": 2.0, "delta": 1e-5},
}


def private_job(**changes: Any) -> dict[str, Any]:
    return (
        job(None, "x")
        | {
            "rounds": ROUNDS,
            "data": {"use": "wine", "partition": {"use": "iid", "clients": 2}},
            "task": {"use": "classification", "model": "linear", "preprocess": "none"},
            "strategy": {"use": "fedavg", "local": {"batch_size": 8, "optimizer": {"use": "sgd", "lr": 0.05}}},
            "privacy": PRIVACY,
        }
        | changes
    )


@dataclass
class Asked:
    """A site, and what its coordinator would ask."""

    federation: Federation
    params: Params
    work: LocalWork
    noise: float

    def said(self, work: LocalWork, number: int = 1, *, place: int = 0) -> Any:
        phase = TrainPhase(round=number, broadcast=Broadcast(params=self.params), work=work, cohort=1)
        (reply,) = self.federation.exchange(phase, self.federation.clients[place : place + 1])
        return reply

    def with_noise(self, noise: float, clip_norm: float = 1.0, **changes: Any) -> LocalWork:
        hidden = ExamplePrivacy(clip_norm=clip_norm, noise_multiplier=noise)
        return replace(self.work, example_privacy=hidden, **changes)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    values = private_job()
    folder = tmp_path_factory.mktemp("site")
    federation = Federation({"s": at_site(folder, values, data={"simulate": "1/1"})}, values)
    parts = build_parts(job_from_values(values))
    schema = federation.agreement.layout.data_schema
    assert schema is not None
    task: Any = parts.task
    settled = build_job(job_from_values(values)).simulation.settled_privacy
    assert settled is not None
    params = task.bind(schema_from_card(schema)).init_params(3)
    return Asked(federation, params, parts.strategy.local_work(1), settled.noise_multiplier)


def test_as_much_noise_as_the_job_needs_or_more_will_do(asked: Asked) -> None:
    for factor in (1.0, 1.5):
        reply = asked.said(asked.with_noise(factor * asked.noise), ROUNDS)
        assert isinstance(reply, Update), reply
        assert (dict(reply.sums), reply.seconds) == ({}, 0.0)


def test_noise_is_the_sites_own_and_the_same_for_the_same_question_alone(asked: Asked) -> None:
    first, again, other = (asked.said(asked.with_noise(asked.noise), number, place=1) for number in (1, 1, 2))
    np.testing.assert_array_equal(first.delta.numpy(), again.delta.numpy())
    assert not np.any(first.delta.numpy() == other.delta.numpy())


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        (lambda of: of.work, 1, "would hide none of them"),
        (lambda of: of.with_noise(0.0), 1, "costs an example of this client ε = inf"),
        (lambda of: of.with_noise(0.98 * of.noise), 1, "the job's budget is ε = 2"),
        (lambda of: of.with_noise(of.noise, clip_norm=2.0), 1, "the job clips gradients to 1, and this work to 2"),
        (lambda of: of.with_noise(of.noise, epochs=2), 1, "is not what the job's strategy has clients do"),
        (lambda of: of.with_noise(of.noise, batch_size=16), 1, "is not what the job's strategy has clients do"),
        (lambda of: of.with_noise(of.noise, upload="gradient"), 1, "is not what the job's strategy has clients do"),
        (lambda of: of.with_noise(of.noise), ROUNDS + 1, "for 3 rounds, and this is round 4"),
    ],
)
def test_what_would_tell_more_is_refused(asked: Asked, change: Any, number: int, words: str) -> None:
    reply = asked.said(change(asked), number)
    assert isinstance(reply, ClientFailure)
    assert words in reply.message


def test_no_other_question_about_examples_is_answered(asked: Asked) -> None:
    questions = (EvaluatePhase(round=1, params=asked.params, split="test"), StatisticsPhase())
    for phase in questions:
        (reply,) = asked.federation.exchange(phase, asked.federation.clients[:1])
        assert isinstance(reply, ClientFailure)
        assert "without noise" in reply.message


def test_steps_that_nobody_promised_are_refused(tmp_path: Path) -> None:
    values = private_job()
    del values["privacy"]
    federation = Federation({"s": at_site(tmp_path, values, data={"simulate": "1/1"})}, values)
    parts = build_parts(job_from_values(values))
    task: Any = parts.task
    assert federation.agreement.layout.data_schema is not None
    params = task.bind(schema_from_card(federation.agreement.layout.data_schema)).init_params(3)
    work = replace(parts.strategy.local_work(1), example_privacy=ExamplePrivacy(clip_norm=1.0, noise_multiplier=1.0))
    phase = TrainPhase(round=1, broadcast=Broadcast(params=params), work=work, cohort=1)
    (reply,) = federation.exchange(phase, federation.clients[:1])
    assert isinstance(reply, ClientFailure)
    assert "promises nothing of the kind" in reply.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy": PRIVACY | {"mechanism": {"use": "gaussian"}}}, "hides whole clients"),
        (
            {
                "task": {
                    "use": "classification",
                    "model": "linear",
                    "preprocess": {"use": "standardize", "fit": "client"},
                }
            },
            "one example would change",
        ),
        ({"pipeline": {"stages": [{"use": "local_gaussian", "norm": 1.0}]}}, "adds noise that hides clients"),
    ],
)
def test_a_site_takes_no_part_in_what_could_not_keep_its_word(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    values = private_job(**changes)
    if "pipeline" in changes:
        values["strategy"] = {"use": "fedavg", "weighting": "uniform"}
    run = at_site(tmp_path, values, data={"simulate": "1/1"})
    layout = run.describe(DescribeOrder()).layout
    with pytest.raises(PrivacyError, match=words):
        run.prepare(PrepareOrder(layout=layout, sites=1))


def test_noise_never_meets_other_vectors_that_a_client_kept(tmp_path: Path) -> None:
    """A coordinator asks for a round anew, so that the client keeps something else, and then the next as before."""
    site = OneSite(tmp_path, {"budgets": [{"epsilon": 50.0, "delta": 1e-5, "unit": "example"}]})
    values = private_job()
    values["strategy"]["local"] = values["strategy"]["local"] | {"personal": ["*bias"]}
    assert isinstance(site.prepare(values), PreparedReply)
    hidden = ExamplePrivacy(clip_norm=1.0, noise_multiplier=9.0)

    def answer(number: int, shift: float, accepted: int) -> Any:
        phase = train(values, number, shift=shift)
        spec = phase.broadcast.params.spec
        shared = phase.broadcast.params.select(spec.without(spec.matching(("*bias",))))
        work = replace(phase.work, example_privacy=hidden)
        asked = replace(phase, broadcast=Broadcast(params=shared), work=work, accepted={"client-0": accepted})
        reply = site.ask(values, asked, ["client-0"])["client-0"]
        assert isinstance(reply, Update), reply
        return reply.delta.numpy()

    answer(1, 0.0, 0)
    first = answer(2, 0.0, 1)
    np.testing.assert_array_equal(first, answer(2, 0.0, 1))
    answer(1, 0.5, 0)
    assert not np.any(first == answer(2, 0.0, 1))
    assert [number for _, number, _ in site.charged("example")] == [1, 2, 1, 2]


@pytest.mark.parametrize("part", ["1/1", "2/2"])
def test_a_site_takes_part_where_the_job_names_its_cohort(tmp_path: Path, part: str) -> None:
    values = private_job(cohort={"use": "fixed", "clients": ["client-0"]})
    run = at_site(tmp_path, values, data={"simulate": part})
    layout = run.describe(DescribeOrder()).layout
    assert run.prepare(PrepareOrder(layout=layout, sites=1)).clients
