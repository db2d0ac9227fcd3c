from __future__ import annotations

import math

import pytest

from hanse.report.verdict import judge
from hanse.rounds.history import Comparison


def comparison(
    own: list[float], federated: list[float], *, metric: str = "accuracy", better: str = "max", n: int = 1000
) -> Comparison:
    size = len(own)
    return Comparison(
        metric=metric,
        better=better,  # type: ignore[arg-type]
        clients=tuple(f"c{i}" for i in range(size)),
        num_examples=(n,) * size,
        columns={"own": tuple(own), "federated": tuple(federated)},
        overall={"own": sum(own) / size, "federated": sum(federated) / size},
    )


@pytest.mark.parametrize(
    ("own", "federated", "sentence"),
    [
        ([0.8, 0.7], [0.9, 0.9], "Joining is worth it for all 2 clients."),
        ([0.8], [0.9], "Joining is worth it for the only client."),
        ([0.8], [0.7], "Joining is not worth it here: 1 of 1 client does better with its own model."),
        ([0.8, 0.8], [0.7, 0.7], "Joining is not worth it here: all 2 clients do better with their own models."),
        ([0.8, 0.8], [0.7, 0.8], "Joining is not worth it here: 1 of 2 clients does better with its own model."),
        ([0.8, 0.8], [0.8, 0.8], "Joining makes no difference to any of 2 clients."),
        ([0.8, 0.8], [0.9, 0.7], "Joining is worth it for only 1 of 2 clients; 1 does better alone."),
        ([0.8] * 3, [0.9, 0.9, 0.7], "Joining is worth it for 2 of 3 clients; better alone: c2 (by 10.0 points)."),
        ([0.8] * 3, [0.9, 0.9, 0.8], "Joining is worth it for 2 of 3 clients, and costs the others nothing."),
        ([0.8] * 9, [0.9] * 5 + [0.7] * 4, "Joining is worth it for 5 of 9 clients; 4 do better alone."),
        ([math.nan], [0.9], "No verdict: no client has a value for both its own and the federated model."),
    ],
)
def test_the_answer_follows_from_the_figures(own: list[float], federated: list[float], sentence: str) -> None:
    assert judge(comparison(own, federated)).sentence == sentence


def test_for_a_loss_less_is_a_gain() -> None:
    verdict = judge(comparison([2.0, 1.0], [1.5, 1.25], metric="rmse", better="min"))
    assert [c.gain for c in verdict.clients] == [0.5, -0.25]
    assert [c.sentence for c in verdict.clients] == ["gains 0.5000", "loses 0.2500"]
    assert (verdict.num_gain, verdict.num_lose) == (1, 1)


def test_few_examples_can_show_a_gain_by_chance() -> None:
    # 20 examples, 16 against 18 hits: p = 17/22, q = 19/22, margin 1.96 * 0.116 = 0.227 > 0.091
    few = judge(comparison([0.8], [0.9], n=20))
    assert few.clients[0].by_chance
    assert few.clients[0].sentence == "gains 10.0 points, maybe by chance"
    assert "this difference is within what chance alone could show" in few.detail
    # 200 examples: p = 161/202, q = 181/202, margin 1.96 * 0.0356 = 0.070 < 0.099
    many = judge(comparison([0.8], [0.9], n=200))
    assert not many.clients[0].by_chance
    assert "chance" not in many.detail


def test_chance_is_not_guessed_at_for_other_metrics() -> None:
    assert not judge(comparison([0.8], [0.9], metric="f1", n=3)).clients[0].by_chance


def test_no_verdict_without_own_models() -> None:
    base = comparison([0.8], [0.9])
    bare = Comparison(**{**vars(base), "columns": {"federated": (0.9,)}})
    verdict = judge(bare)
    assert verdict.sentence == "No verdict: the clients' own models were not evaluated."
    assert verdict.clients == ()
    assert math.isnan(verdict.gain)


def test_the_detail_names_all_three_models() -> None:
    base = comparison([0.8, 0.8], [0.9, 0.9])
    full = Comparison(**{**vars(base), "overall": {"own": 0.8, "federated": 0.9, "pooled": 0.95}})
    assert judge(full).detail.startswith(
        "Over all held-out examples, accuracy is 80.0 % on their own, 90.0 % federated, 95.0 % pooled; "
        "joining brings +10.0 points."
    )
