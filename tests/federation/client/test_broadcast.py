"""An encoded broadcast at a site: what travels is the encoding, and what is none is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, ClientFailure, Reply, TrainPhase, Update
from hanse.core.params import Params
from hanse.federation.client.runtime import FixedRun, answers
from hanse.federation.protocol import WorkItem
from hanse.federation.wire import decode_reply, encode_phase, ref_of
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.downlink import encoded
from hanse.pipeline.encodings import flat_spec
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.rounds.kept_vectors import KeptInMemory
from hanse.simulation.engine import RuntimeFactory
from hanse.simulation.in_process import InProcessTransport
from hanse.testing.fakes import linear_task, tiny_federation
from hanse.testing.fingerprint import fingerprint
from hanse.trainers.auto import TrainerSettings

Change = Callable[[dict[str, Params]], None]
SEED = 7
PIPELINE = Pipeline(broadcast=(Quantize(bits=5),), broadcast_base="initial")


def factory(pipeline: Pipeline = PIPELINE) -> RuntimeFactory:
    return RuntimeFactory(
        dataset=tiny_federation(3),
        task=linear_task(),
        pipeline=pipeline,
        seed=SEED,
        kept=KeptInMemory(),
        trainer=TrainerSettings(),
    )


def phase() -> TrainPhase:
    start = linear_task().init_params(SEED)
    moved = start.with_vector(np.linspace(-1, 1, start.spec.size, dtype=np.float32))
    given = PipelineRound(round=3, seed=SEED, cohort=2)
    broadcast = encoded(PIPELINE, Broadcast(moved, {"more": start}), given, initial=lambda: start)
    return TrainPhase(round=3, broadcast=broadcast, work=LocalWork(), cohort=2)


def ask(asked: TrainPhase, *clients: str, pipeline: Pipeline = PIPELINE) -> list[Reply]:
    order, blobs = encode_phase(asked)
    item = WorkItem(id="w", run="run", job=ref_of(b""), clients=list(clients), order=order)
    found = []
    for reply, content in answers(item, blobs.__getitem__, FixedRun(factory(pipeline))):
        found.append(decode_reply(reply, lambda _, content=content: content or b""))  # type: ignore[misc]
    return found


def test_the_encoding_travels_and_the_client_starts_from_what_it_stands_for(tmp_path: Path) -> None:
    asked = phase()
    _, blobs = encode_phase(asked)
    assert any(b"stage.quantize.scale" in content for content in blobs.values())
    found = ask(asked, "site-0", "site-2")
    wanted = list(InProcessTransport(factory()()).exchange(asked, ["site-0", "site-2"]))
    for mine, theirs in zip(found, wanted, strict=True):
        for reply in (mine, theirs):
            assert isinstance(reply, Update)
            object.__setattr__(reply, "seconds", 0.0)
        assert fingerprint(mine) == fingerprint(theirs)


def forged(change: Change) -> TrainPhase:
    asked = phase()
    assert asked.broadcast.sent is not None
    sent = dict(asked.broadcast.sent)
    change(sent)
    return replace(asked, broadcast=replace(asked.broadcast, sent=sent))


def put(name: str, vector: np.ndarray) -> Change:
    tensor = "packed" if name == "params" else name
    return lambda sent: sent.update({name: Params(flat_spec(tensor, len(vector), vector.dtype.name), vector)})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda sent: sent.pop("stage.quantize.scale"), "lacks `stage.quantize.scale`"),
        (put("stage.quantize.scale", np.array([np.nan], np.float32)), "is no magnitude"),
        (put("params", np.zeros(0, np.uint8)), "its encoded update"),
        (put("params", np.full(5, 255, np.uint8)), "a level is 31; at most 30"),
        (put("params", np.zeros(4, np.float32)), "its encoded update"),
        (put("stage.more", np.zeros(1, np.float32)), "`stage.more`, which nobody knows"),
        (put("stage.base", np.zeros(16, np.uint8)), "comes out otherwise here"),
        (lambda sent: sent.pop("stage.base"), "comes out otherwise here"),
    ],
)
def test_what_is_no_encoding_is_refused_by_name(change: Change, says: str) -> None:
    replies = ask(forged(change), "site-0", "site-1")
    assert [reply.client for reply in replies] == ["site-0", "site-1"]
    for reply in replies:
        assert isinstance(reply, ClientFailure)
        assert reply.kind == "ProtocolError"
        assert "the broadcast of round 3" in reply.message
        assert says in reply.message


def test_a_model_as_it_is_where_an_encoding_is_awaited_is_refused_and_the_other_way_round() -> None:
    plain = replace(phase(), broadcast=Broadcast(phase().broadcast.params))
    [reply] = ask(plain, "site-0")
    assert isinstance(reply, ClientFailure)
    assert "the broadcast of round 3" in reply.message
    [reply] = ask(phase(), "site-0", pipeline=Pipeline())
    assert isinstance(reply, ClientFailure)
