"""Messages and events as values."""

from __future__ import annotations

import json

import numpy as np

from hanse.core.events import ClientFinished, Event, Noted, as_record, fan_out
from hanse.core.messages import Broadcast, Update
from hanse.core.params import Params

TWO = Params.from_arrays({"w": np.zeros(2, np.float32)})
WIDE = Params.from_arrays({"c": np.zeros(3, np.float64)})


def test_bytes_count_all_vectors() -> None:
    assert Broadcast(TWO).nbytes == 8
    assert Broadcast(TWO, {"c": WIDE}).nbytes == 32
    update = Update(client="a", round=1, delta=TWO, num_examples=1, num_steps=1, extras={"c": WIDE, "d": TWO})
    assert update.nbytes == 40


def test_an_event_is_a_json_record_that_names_itself() -> None:
    record = as_record(ClientFinished(round=3, client="a", num_examples=5, seconds=0.5))
    assert json.loads(json.dumps(record)) == {
        "event": "ClientFinished",
        "round": 3,
        "client": "a",
        "num_examples": 5,
        "seconds": 0.5,
    }


def test_fan_out_tells_everybody_in_order() -> None:
    heard: list[tuple[str, Event]] = []
    emit = fan_out([lambda event: heard.append(("first", event)), lambda event: heard.append(("second", event))])
    emit(Noted(message="x"))
    assert [who for who, _ in heard] == ["first", "second"]
    assert heard[0][1] == heard[1][1] == Noted(message="x")
