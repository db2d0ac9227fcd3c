from __future__ import annotations

from itertools import pairwise

import pytest

from hanse.attacks.counts import count_of
from hanse.attacks.members import Members
from hanse.core.errors import SettingError

CLIENTS = [f"site-{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("share", "total", "count"),
    [(0.0, 10, 0), (0.01, 10, 1), (0.24, 50, 12), (0.25, 10, 3), (0.29, 50, 15), (1.0, 7, 7), (0.5, 0, 0)],
)
def test_a_share_is_rounded_half_up_and_is_somebody_if_it_is_anything(share: float, total: int, count: int) -> None:
    assert count_of(share, total) == count


def test_drawn_once_whatever_the_order_and_the_round() -> None:
    members = Members(share=0.2)
    fixed = members.fixed(CLIENTS, 3)
    assert len(fixed) == 4
    assert fixed == tuple(sorted(fixed))
    assert fixed == members.fixed(CLIENTS[::-1], 3)
    assert members.in_round(CLIENTS, 3, 1) == members.in_round(CLIENTS, 3, 9) == frozenset(fixed)
    assert fixed != members.fixed(CLIENTS, 4)


def test_a_smaller_share_is_part_of_a_larger() -> None:
    draws = [set(Members(count=count).fixed(CLIENTS, 0)) for count in range(6)]
    assert [len(draw) for draw in draws] == [0, 1, 2, 3, 4, 5]
    assert all(small < large for small, large in pairwise(draws))


def test_drawn_anew_in_each_round() -> None:
    members = Members(count=5, each_round=True)
    draws = [members.in_round(CLIENTS, 0, number) for number in (1, 2, 3)]
    assert [len(draw) for draw in draws] == [5, 5, 5]
    assert len(set(draws)) == 3
    assert draws[1] == members.in_round(CLIENTS[::-1], 0, 2)
    assert members.fixed(CLIENTS, 0) == tuple(sorted(CLIENTS))
    assert Members(count=0, each_round=True).fixed(CLIENTS, 0) == ()


def test_only_between_two_rounds() -> None:
    members = Members(clients=("site-3", "site-1"), from_round=2, until_round=3)
    assert members.fixed(CLIENTS, 0) == ("site-1", "site-3")
    assert [len(members.in_round(CLIENTS, 0, number)) for number in (1, 2, 3, 4)] == [0, 2, 2, 0]
    assert Members(count=1, from_round=2).in_round(CLIENTS, 0, 10**6)


def test_unknown_names_and_too_many() -> None:
    with pytest.raises(SettingError, match="there is no client `site-33`") as caught:
        Members(clients=("site-33",)).fixed(CLIENTS, 0)
    assert "did you mean" in (caught.value.hint or "")
    with pytest.raises(SettingError, match="is 21, and there are 20 clients"):
        Members(count=21).in_round(CLIENTS, 0, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"share": 0.1, "count": 1},
        {"count": 1, "clients": ("a",)},
        {"share": -0.1},
        {"share": 1.1},
        {"share": float("nan")},
        {"count": -1},
        {"clients": "site-1"},
        {"clients": ("a",), "each_round": True},
        {"count": 1, "from_round": 0},
        {"count": 1, "from_round": 3, "until_round": 2},
    ],
)
def test_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        Members(**settings)
