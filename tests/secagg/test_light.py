"""Asynchronous secure sums: exact whoever is away, once for each share, nothing from fewer than are needed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hanse.core.errors import MessageRefusedError, PipelineError, SettingError, SpecMismatchError
from hanse.secagg.identity import RehearsedIdentities
from hanse.secagg.light import LightClient, LightServer, LightTerms, OpenRequest
from hanse.secagg.light.lagrange_code import LagrangeCode
from hanse.secagg.light.mersenne import PRIME, lagrange, product
from hanse.secagg.light.messages import from_bytes, to_bytes
from tests.secagg.parties import names, source

FALSE_FAILURE = 1e-6  # seeds are fixed; fresh ones would fail wrongly this often


def make_terms(count: int = 5, **changed: Any) -> LightTerms:
    given = {"run": "r", "members": tuple(names(count)), "length": 7, "private": 1, "needed": 4, "min_buffer": 3}
    return LightTerms(**{**given, "simulated": True, **changed})


class Group:
    def __init__(self, terms: LightTerms) -> None:
        self.terms = terms
        self.identities = RehearsedIdentities(terms.members, source("light", "identities"))
        self.server = LightServer(terms, verify=self.identities.verify)
        self.clients = {
            name: LightClient(
                terms,
                name,
                sign=self.identities.sign_for(name),
                verify=self.identities.verify,
                source=source("light", name),
            )
            for name in terms.members
        }
        for name, client in self.clients.items():
            self.server.receive_card(name, client.card)
        for client in self.clients.values():
            client.meet(self.server.cards)

    def offer(self, name: str) -> int:
        offer = self.clients[name].offer()
        for holder, box in self.server.receive_offer(name, offer).items():
            self.clients[holder].keep(box)
        return offer.serial

    def send(self, name: str, values: np.ndarray) -> None:
        self.server.receive_input(name, self.clients[name].mask(values, self.offer(name)))


def values_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, 7)


def test_products_are_those_of_whole_numbers() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, PRIME, (5, 40)), rng.integers(0, PRIME, (40, 3))
    left[0], right[:, 0] = PRIME - 1, PRIME - 1
    expected = left.astype(object) @ right.astype(object) % PRIME
    assert product(left, right).tolist() == expected.tolist()


def test_interpolation_by_hand() -> None:
    """f(x) = 3x² + 2x + 1 through three points."""
    points = np.array([1, 5, 9])
    values = 3 * points**2 + 2 * points + 1
    found = product(lagrange(points, np.array([100])), values[:, None])
    assert found.tolist() == [[3 * 10_000 + 200 + 1]]


@given(st.integers(2, 9), st.data())
@settings(deadline=None, max_examples=40)
def test_any_needed_shares_of_sums_open_the_sum(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, count))
    code = LagrangeCode(count, data.draw(st.integers(0, needed - 1)), needed, data.draw(st.integers(1, 11)))
    drawn = [code.draw(source("code", number)) for number in range(3)]
    mask, shares = (sum(parts) % PRIME for parts in zip(*drawn, strict=True))
    holders = np.array(sorted(data.draw(st.permutations(range(count)))[:needed]))
    np.testing.assert_array_equal(code.open(holders, shares[holders]), mask)


def test_private_shares_and_masks_are_uniform() -> None:
    """χ² of a mask, and of two holders' shares together, over 16 × 16 cells, at the stated rate."""
    code = LagrangeCode(5, 2, 4, 100_000)
    mask, shares = code.draw(source("uniform"))
    assert stats.chisquare(np.bincount(mask >> 23, minlength=256)).pvalue > FALSE_FAILURE
    cells = (shares[1] >> 27) * 16 + (shares[3] >> 27)
    assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue > FALSE_FAILURE


@given(st.sets(st.integers(0, 4), min_size=3), st.sets(st.integers(0, 4), max_size=2))
@settings(deadline=None, max_examples=30)
def test_the_sum_is_exact_or_nothing(senders: set[int], away: set[int]) -> None:
    group = Group(make_terms())
    for number in senders:
        group.send(names(5)[number], values_of(number))
    request = group.server.ask()
    totals = [
        group.server.receive_opening(name, group.clients[name].open(request))
        for number, name in enumerate(names(5))
        if number not in away and (5 - len(away) <= 4 or number < 4)
    ]
    if len(away) > 1:
        assert totals == [None] * 3
        return
    total = totals[3]
    assert total is not None
    assert total.values.tolist() == sum(values_of(number) for number in senders).tolist()
    assert total.masks == tuple((names(5)[number], 0) for number in sorted(senders))


def test_buffers_follow_each_other_and_late_vectors_wait() -> None:
    """Masks of different ages in one sum; what arrives during an opening is in the next one."""
    group = Group(make_terms())
    old = group.offer("site-000")
    for number in (1, 2, 3):
        group.send(names(5)[number], values_of(number))
    request = group.server.ask()
    group.server.receive_input("site-000", group.clients["site-000"].mask(values_of(0), old))
    found = [group.server.receive_opening(name, group.clients[name].open(request)) for name in names(5)[:4]]
    assert found[3].values.tolist() == (values_of(1) + values_of(2) + values_of(3)).tolist()
    for number in (3, 4):
        group.send(names(5)[number], values_of(10 + number))
    request = group.server.ask()
    found = [group.server.receive_opening(name, group.clients[name].open(request)) for name in names(5)[1:]]
    assert found[3].values.tolist() == (values_of(0) + values_of(13) + values_of(14)).tolist()


def test_no_share_is_opened_twice_nor_for_too_few() -> None:
    group = Group(make_terms())
    for number in range(5):
        group.send(names(5)[number], values_of(number))
    request = group.server.ask()
    client = group.clients["site-000"]
    for masks in (
        request.masks[:2],
        (*request.masks, request.masks[0]),
        ((0, 7), *request.masks[1:]),
        request.masks[::-1],
    ):
        with pytest.raises(MessageRefusedError, match="the server is refused"):
            client.open(replace(request, masks=masks))
    assert client.open(replace(request, masks=request.masks[:3]))
    for masks in (request.masks, request.masks[1:4], request.masks[2:]):  # sums that differ from it in a few
        with pytest.raises(MessageRefusedError, match="was opened before"):
            client.open(OpenRequest(group.terms.digest, masks))


def test_what_is_repeated_forged_or_malformed_is_refused() -> None:
    group = Group(make_terms())
    server, client = group.server, group.clients["site-001"]
    offer = client.offer()
    boxes = server.receive_offer("site-001", offer)
    for wrong in (
        offer,
        replace(offer, serial=9, boxes=offer.boxes[2:]),
        replace(offer, serial=9, boxes=offer.boxes[::-1]),
        replace(offer, serial=9, boxes=((0, b""), *offer.boxes[1:])),
        replace(offer, session=bytes(32)),
        replace(offer, client="site-002"),
    ):
        with pytest.raises(MessageRefusedError, match="client `site-001` is refused"):
            server.receive_offer("site-001", wrong)
    holder = group.clients["site-002"]
    for box in (boxes["site-003"], replace(boxes["site-002"], serial=4), replace(boxes["site-002"], owner=0)):
        with pytest.raises(MessageRefusedError):
            holder.keep(box)
    holder.keep(boxes["site-002"])
    with pytest.raises(MessageRefusedError, match="came before"):
        holder.keep(boxes["site-002"])
    sent = client.mask(values_of(1), 0)
    with pytest.raises(MessageRefusedError, match="used up"):
        client.mask(values_of(1), 0)
    for wrong in (replace(sent, words=bytes(8)), replace(sent, words=b"\xff" * 28), replace(sent, serial=3)):
        with pytest.raises(MessageRefusedError):
            server.receive_input("site-001", wrong)
    server.receive_input("site-001", sent)
    with pytest.raises(MessageRefusedError):
        server.receive_input("site-001", sent)
    with pytest.raises(MessageRefusedError):
        server.ask()
    with pytest.raises(SpecMismatchError):
        client.mask(np.zeros(7), client.offer().serial)


def test_forged_and_changed_keys_are_refused() -> None:
    group = Group(make_terms())
    card, other = group.clients["site-001"].card, group.clients["site-002"].card
    again = LightClient(
        group.terms,
        "site-001",
        sign=group.identities.sign_for("site-001"),
        verify=group.identities.verify,
        source=source("light", "again"),
    )
    for wrong in (replace(card, key=other.key), replace(card, signature=bytes(64)), again.card):
        with pytest.raises(MessageRefusedError):
            group.server.receive_card("site-001", wrong)
        with pytest.raises(MessageRefusedError):
            group.clients["site-000"].meet([wrong])
    with pytest.raises(MessageRefusedError, match="1 members are known; 4 open a mask"):
        again.offer()


def test_terms_that_do_not_protect_are_refused() -> None:
    with pytest.raises(PipelineError, match="two sums that differ in one update") as caught:
        make_terms(needed=3)
    assert "needed = 4" in str(caught.value)
    assert make_terms(needed=3, active=False).digest != make_terms().digest
    for wrong in ({"private": 4}, {"needed": 6}, {"min_buffer": 1}, {"members": ("b", "a")}, {"length": 0}):
        with pytest.raises(SettingError):
            make_terms(**wrong)
    with pytest.raises(SettingError, match="from a seed"):
        LightClient(
            make_terms(simulated=False), "site-000", sign=lambda _: b"", verify=lambda *_: True, source=source("x")
        )


def test_messages_have_one_encoding_and_cut_ones_are_refused() -> None:
    group = Group(make_terms())
    offer = group.clients["site-000"].offer()
    box = group.server.receive_offer("site-000", offer)["site-001"]
    group.server.receive_input("site-000", sent := group.clients["site-000"].mask(values_of(0), 0))
    for number in (1, 2):
        group.send(names(5)[number], values_of(number))
    request = group.server.ask()
    opening = group.clients["site-002"]
    group.clients["site-002"].keep(replace(box, box=offer.boxes[1][1]))
    for message in (group.clients["site-000"].card, offer, box, sent, request, opening.open(request)):
        content = to_bytes(message)
        again = from_bytes(content, most=1000)
        for field in fields(message):
            assert getattr(again, field.name) == getattr(message, field.name)
        assert to_bytes(again) == content
        for size in range(36):
            with pytest.raises(MessageRefusedError):
                from_bytes(content[:size], most=1000)
        with pytest.raises(MessageRefusedError, match="at most"):
            from_bytes(content, most=len(content) - 1)
