"""Messages that are malformed, repeated, out of order, replayed, forged or swapped, in every phase and both ways."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import MessageRefusedError, SumAbandonedError
from hanse.secagg import Phase, ServerSession, from_bytes, to_bytes
from hanse.secagg.client import pair_seed
from hanse.secagg.key_agreement import AgreementKey
from hanse.secagg.messages import (
    Advert,
    Confirmation,
    Inbox,
    Invitation,
    MaskedInput,
    Roster,
    Survivors,
    Unmasking,
    UnmaskRequest,
)
from tests.secagg.parties import LAYOUT, Parties, plain_sum, values_of

EVERY = range(5)


def at(phase: int, cohort: int = 4, **changed: Any) -> Parties:
    """In that phase, with all answers made and none given."""
    parties = Parties(cohort, **changed).phases(phase)
    parties.step()
    return parties


def finish(parties: Parties) -> None:
    """All phases that are left; the sum must be the plain one."""
    while not parties.server.is_done:
        parties.sent = dict(parties.server.advance())
        for name, message in parties.sent.items():
            parties.server.receive(name, parties.clients[name].receive(message))
    total = parties.server.total
    assert {name: words.tolist() for name, words in total.words.items()} == plain_sum(total.clients)


# at the server


@pytest.mark.parametrize("phase", EVERY)
def test_who_answers_twice_is_refused_and_counted_once(phase: int) -> None:
    parties = at(phase)
    parties.give()
    with pytest.raises(MessageRefusedError, match="client `site-001` is refused: it answered already") as caught:
        parties.server.receive("site-001", parties.answers["site-001"])
    assert (caught.value.client, caught.value.phase) == ("site-001", list(Phase)[phase + 1])
    finish(parties)


@pytest.mark.parametrize("phase", EVERY)
def test_answers_of_other_phases_are_refused(phase: int) -> None:
    every = [at(other).answers["site-001"] for other in EVERY]
    parties = at(phase)
    for other, answer in enumerate(every):
        if other != phase:
            with pytest.raises(MessageRefusedError, match=f"{type(answer).__name__} came where"):
                parties.server.receive("site-001", answer)
    parties.give()
    finish(parties)


@pytest.mark.parametrize("phase", EVERY)
@pytest.mark.parametrize("changed", [{"round": 4}, {"run": "run-2"}, {"attempt": 1}, {"purpose": "metrics"}])
def test_answers_of_other_sessions_are_refused(phase: int, changed: dict[str, Any]) -> None:
    replayed = at(phase, **changed).answers["site-001"]
    parties = at(phase)
    with pytest.raises(MessageRefusedError, match="belongs to another session"):
        parties.server.receive("site-001", replayed)
    parties.give()
    finish(parties)


@pytest.mark.parametrize("phase", EVERY)
def test_answers_in_anothers_name_are_refused(phase: int) -> None:
    parties = at(phase)
    with pytest.raises(MessageRefusedError, match="it says that it is of `site-002`"):
        parties.server.receive("site-001", parties.answers["site-002"])
    with pytest.raises(MessageRefusedError, match="it was not asked"):
        parties.server.receive("stranger", replace(parties.answers["site-002"], client="stranger"))
    parties.give()
    finish(parties)


def test_swapped_or_forged_keys_are_refused_by_the_server() -> None:
    parties = at(0)
    mine, other = parties.answers["site-001"], parties.answers["site-002"]
    for forged in (
        replace(mine, mask_key=other.mask_key),
        replace(mine, seal_key=mine.mask_key),
        replace(other, client="site-001"),
        replace(mine, signature=bytes(64)),
    ):
        with pytest.raises(MessageRefusedError, match="not signed by its identity"):
            parties.server.receive("site-001", forged)
    parties.give()
    finish(parties)


def test_keys_of_another_server_number_are_refused() -> None:
    """A replay of the same session's keys from a server that was started anew without another attempt."""
    replayed = at(0, seed=1).answers["site-001"]
    parties = at(0, seed=2)
    with pytest.raises(MessageRefusedError, match="not signed"):
        parties.server.receive("site-001", replayed)


@pytest.mark.parametrize("size", [0, 1, LAYOUT.nbytes - 1, LAYOUT.nbytes + 1, 4000])
def test_lying_about_the_vectors_size_is_refused(size: int) -> None:
    parties = at(2)
    with pytest.raises(MessageRefusedError, match=f"its input has {size} bytes; {LAYOUT.nbytes} were agreed on"):
        parties.server.receive("site-001", replace(parties.answers["site-001"], words=bytes(size)))
    parties.give()
    finish(parties)


def test_shares_of_the_wrong_length_or_number_are_refused() -> None:
    parties = at(1)
    mine = parties.answers["site-001"]
    for wrong in (
        replace(mine, boxes=mine.boxes[1:]),
        replace(mine, boxes=(*mine.boxes[1:], mine.boxes[0][:-1])),
        replace(mine, digests=mine.digests[1:]),
        replace(mine, digests=(*mine.digests[1:], b"")),
    ):
        with pytest.raises(MessageRefusedError, match="wanted"):
            parties.server.receive("site-001", wrong)
    parties.give()
    parties = at(4)
    opened = parties.answers["site-001"]
    (number, share), *others = opened.shares
    for wrong in (
        replace(opened, shares=((number, share[:-1]), *others)),
        replace(opened, shares=((number, share + share), *others)),
        replace(opened, shares=tuple(others)),
        replace(opened, shares=(*others, (number, share))),
        replace(opened, shares=((number, share), (number, share), *others)),
        replace(opened, unopened=(0,)),
    ):
        with pytest.raises(MessageRefusedError, match="site-001"):
            parties.server.receive("site-001", wrong)
    parties.give()
    finish(parties)


def test_a_false_confirmation_is_refused() -> None:
    parties = at(3)
    with pytest.raises(MessageRefusedError, match="not of the survivors that it was told of"):
        parties.server.receive("site-001", replace(parties.answers["site-001"], signature=bytes(64)))
    parties.give()
    finish(parties)


@pytest.mark.parametrize("phase", EVERY)
def test_garbage_costs_its_sender_alone_if_the_threshold_holds(phase: int) -> None:
    """One client of five answers nonsense from some phase on: the others' sum comes out, with or without its input."""
    parties = at(phase, 5)
    for name, answer in parties.answers.items():
        if name != "site-003":
            parties.server.receive(name, answer)
    while not parties.server.is_done:
        for name, message in parties.server.advance().items():
            if name != "site-003":
                parties.server.receive(name, parties.clients[name].receive(message))
    clients = parties.server.total.clients
    assert ("site-003" in clients) == (phase > 2)
    words = parties.server.total.words
    assert {name: part.tolist() for name, part in words.items()} == plain_sum(clients)


# at clients


@pytest.mark.parametrize("phase", EVERY)
def test_clients_answer_each_phase_once_and_in_order(phase: int) -> None:
    parties = at(phase)
    client = parties.clients["site-001"]
    for message in [parties.sent["site-001"], *(at(other).sent["site-001"] for other in EVERY if other > phase + 1)]:
        with pytest.raises(MessageRefusedError, match="a message of the server is refused") as caught:
            client.receive(message)
        assert caught.value.client == "server"
    parties.give()
    finish(parties)


@pytest.mark.parametrize("phase", EVERY)
def test_clients_refuse_messages_of_other_sessions(phase: int) -> None:
    replayed = at(phase, round=4).sent["site-001"]
    parties = Parties(4).phases(phase)
    message = parties.server.advance()["site-001"]
    with pytest.raises(MessageRefusedError, match="another session, or to other terms"):
        parties.clients["site-001"].receive(replayed)
    assert parties.clients["site-001"].receive(message)


def roster_of(parties: Parties, **changed: Any) -> Roster:
    parties.give()
    roster = parties.server.advance()["site-001"]
    assert isinstance(roster, Roster)
    return replace(roster, **changed) if changed else roster


def test_clients_refuse_forged_rosters() -> None:
    """Another number than was committed to, swapped or foreign keys, other keys of its own, order, doubles."""
    parties = at(0)
    roster = roster_of(parties)
    client = parties.clients["site-001"]
    first, me, third, fourth = roster.adverts
    stale = at(0, seed=3).answers["site-000"]
    for adverts, words in [
        ((replace(first, mask_key=third.mask_key), me, third, fourth), "not signed by its identity"),
        ((replace(first, seal_key=bytes(32)), me, third, fourth), "not signed by its identity"),
        ((stale, me, third, fourth), "not signed by its identity"),
        ((replace(third, client=first.client), me, third, fourth), "not signed by its identity"),
        ((first, replace(me, mask_key=third.mask_key), third, fourth), "other keys for `site-001`"),
        ((me, first, third, fourth), "not in order"),
        ((first, me, third, third), "not in order, or one is twice"),
    ]:
        with pytest.raises(MessageRefusedError, match=words):
            client.receive(replace(roster, adverts=adverts))
    with pytest.raises(MessageRefusedError, match="not the one it committed to"):
        client.receive(replace(roster, opening=bytes(32)))
    assert client.receive(roster)


def test_a_copied_key_gives_no_copied_mask() -> None:
    """Else a corrupt client's mask with a victim cancels an honest one's: one is added, the other one taken off."""
    victim, honest = AgreementKey(bytes(range(32))), AgreementKey(bytes(range(1, 33)))
    seeds = [pair_seed(victim, honest.public, bytes(32), 5, other) for other in (2, 7)]
    assert seeds[0].seed != seeds[1].seed
    assert [seed.subtract for seed in seeds] == [True, False]
    theirs = pair_seed(honest, victim.public, bytes(32), 7, 5)
    assert (theirs.seed, theirs.subtract) == (seeds[1].seed, True)


def test_clients_refuse_more_clients_than_agreed_on() -> None:
    """A roster that is filled up with clients that nobody asked for."""
    parties = at(0, 5)
    roster = roster_of(parties)
    parties.clients["site-001"] = parties.client("site-001", terms=replace(parties.terms, cohort=4))
    with pytest.raises(MessageRefusedError, match="other terms"):
        parties.clients["site-001"].receive(parties.sent["site-001"])
    stranger = replace(roster.adverts[4], client="site-999")
    filled_up = replace(roster, adverts=(*roster.adverts, stranger))
    with pytest.raises(MessageRefusedError, match="6 clients are on the roster of 5"):
        parties.clients["site-002"].receive(filled_up)
    assert parties.clients["site-002"].receive(roster)


def test_a_client_that_is_left_out_is_over() -> None:
    parties = at(0)
    roster = roster_of(parties)
    with pytest.raises(SumAbandonedError, match="not on the roster"):
        parties.clients["site-001"].receive(replace(roster, adverts=tuple(roster.adverts[i] for i in (0, 2, 3))))
    with pytest.raises(MessageRefusedError, match="abandoned"):
        parties.clients["site-001"].receive(roster)


def test_clients_refuse_boxes_that_do_not_add_up() -> None:
    parties = at(1)
    parties.give()
    inbox = parties.server.advance()["site-001"]
    assert isinstance(inbox, Inbox)
    client = parties.clients["site-001"]
    for wrong in (
        replace(inbox, boxes=inbox.boxes[1:]),
        replace(inbox, sharers=np.ones(5, dtype=bool)),
        replace(inbox, sharers=np.array([True, True, True, False])),
    ):
        with pytest.raises(MessageRefusedError):
            client.receive(wrong)
    assert client.receive(inbox)
    with pytest.raises(MessageRefusedError, match="input is set only before"):
        client.set_input(values_of("site-001"))


def test_clients_refuse_survivors_that_never_shared() -> None:
    parties = Parties(5).phases(1).phases(1, lost=("site-004",)).phases(1)
    survivors = parties.server.advance()["site-001"]
    assert isinstance(survivors, Survivors)
    with pytest.raises(MessageRefusedError, match="no subset"):
        parties.clients["site-001"].receive(replace(survivors, survivors=np.ones(5, dtype=bool)))
    too_few = np.array([True, True, False, False, False])
    with pytest.raises(SumAbandonedError, match="2 clients sent their inputs"):
        parties.clients["site-001"].receive(replace(survivors, survivors=too_few))


@pytest.mark.parametrize("victim", range(5))
@pytest.mark.parametrize("told_truth", [{0, 1}, {0, 1, 2}, {0, 2, 4}, {1, 2, 3, 4}])
def test_no_client_gives_both_kinds_of_share(victim: int, told_truth: set[int]) -> None:
    """A server tells some that the victim survived and others that it dropped out, then asks all for what they give.

    No client signs two views, gives more than one share of the victim, or gives any that too few share the view for.
    """
    parties = Parties(5).phases(3)
    truth = parties.server.advance()["site-000"]
    assert isinstance(truth, Survivors)
    without = truth.survivors.copy()
    without[victim] = False
    views = {n: truth.survivors if n in told_truth | {victim} else without for n in range(5)}
    clients = [parties.clients[name] for name in parties.names]
    said = {n: clients[n].receive(replace(truth, survivors=views[n])).signature for n in range(5)}
    opened: dict[int, int] = {}  # a holder's share of the victim, by its length
    for n, client in enumerate(clients):
        with pytest.raises(MessageRefusedError, match="Survivors came where UnmaskRequest was awaited"):
            client.receive(replace(truth, survivors=without))
        same = [other for other in range(5) if views[other] is views[n]]
        for asked in ([], [m for m in range(5) if m not in same], [m for m in same if m != n]):
            request = UnmaskRequest(parties.terms.digest, tuple((m, said[m]) for m in asked))
            if len(same) >= 3 and asked == [m for m in same if m != n]:
                shares = dict(client.receive(request).shares)
                opened[n] = len(shares[victim])
            else:
                with pytest.raises(MessageRefusedError):
                    client.receive(request)
        with pytest.raises(MessageRefusedError):
            client.receive(replace(request, signatures=()))
    assert len(set(opened.values())) <= 1  # all of one kind, for two views can't both find three of five


def test_at_most_one_view_finds_enough_helpers() -> None:
    """However clients are divided among two views: if one finds enough helpers, too few are left for the other."""
    for cohort in range(3, 40):
        terms = Parties(3).terms
        degree = replace(terms, cohort=cohort, min_survivors=2, threshold=0.2, corrupt=0.0).degree(cohort)
        corrupt = int(0.2 * cohort)
        stricter = replace(terms, cohort=cohort, min_survivors=2, threshold=0.2, corrupt=0.2).degree(cohort)
        assert 2 * degree.shares > cohort
        assert 2 * (stricter.shares - corrupt) > cohort - corrupt


def test_a_request_is_answered_once_and_needs_neighbours_signatures() -> None:
    parties = Parties(4).phases(4)
    request = parties.server.advance()["site-001"]
    assert isinstance(request, UnmaskRequest)
    client = parties.clients["site-001"]
    (first, signature), *others = request.signatures
    for pairs in (
        ((first, bytes(64)), *others),
        (*others, (first, signature)),
        ((1, signature), *others),
        ((first, signature), (first, signature)),
        ((first, signature),),
        ((first, signature), (7, signature)),
    ):
        with pytest.raises(MessageRefusedError):
            client.receive(replace(request, signatures=tuple(pairs)))
    opened = client.receive(request)
    assert isinstance(opened, Unmasking)
    assert [number for number, _ in opened.shares] == [0, 1, 2, 3]
    assert {len(share) for _, share in opened.shares} == {17}
    with pytest.raises(MessageRefusedError, match="this session is done"):
        client.receive(request)


def test_of_who_dropped_out_the_key_is_opened_and_of_survivors_the_seed() -> None:
    parties = Parties(5).phases(2).phases(1, lost=("site-002",)).phases(1)
    parties.step()
    assert [len(share) for _, share in parties.answers["site-000"].shares] == [17, 17, 34, 17, 17]
    parties.give()
    finish(parties)


# bytes


def every_message() -> list[Any]:
    found: list[Any] = []
    for phase in EVERY:
        parties = at(phase, 3)
        found += [parties.sent["site-001"], parties.answers["site-001"]]
    return found


MESSAGES = every_message()
MOST = Parties(3).terms.most_bytes


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_each_message_has_one_encoding(message: Any) -> None:
    content = to_bytes(message)
    again = from_bytes(content, most=MOST)
    assert type(again) is type(message)
    for field in fields(message):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(message, field.name))
    assert to_bytes(again) == content
    assert len(content) <= MOST


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_cut_or_prolonged_bytes_are_refused(message: Any) -> None:
    content = to_bytes(message)
    for size in range(len(content)):
        if isinstance(message, MaskedInput) and size >= 36 + 9:
            break  # its words are as long as they are; their number is checked by the server
        with pytest.raises(MessageRefusedError):
            from_bytes(content[:size], most=MOST)
    if not isinstance(message, MaskedInput):
        with pytest.raises(MessageRefusedError, match="left over"):
            from_bytes(content + b"\0", most=MOST)
    with pytest.raises(MessageRefusedError, match="at most"):
        from_bytes(content + bytes(MOST), most=MOST)


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_changed_bytes_are_refused_or_another_message(data: st.DataObject) -> None:
    content = bytearray(to_bytes(data.draw(st.sampled_from(MESSAGES))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = from_bytes(bytes(content), most=MOST)
    except MessageRefusedError:
        return
    assert to_bytes(message) == bytes(content)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_noise_is_refused(content: bytes) -> None:
    with pytest.raises(MessageRefusedError):
        from_bytes(content, most=MOST)


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_fuzzed_answers_never_spoil_the_sum(data: st.DataObject) -> None:
    """One client's bytes are changed in each phase: refused, or, in the vector and beside it, taken for its own.

    What a client says of its own vector can't be checked; anything else is refused by name or ends in the right sum.
    """
    parties = Parties(5)
    spoilt = False
    try:
        while not parties.server.is_done:
            for name, message in parties.server.advance().items():
                answer = parties.clients[name].receive(message)
                if name == "site-003":
                    content = bytearray(to_bytes(answer))
                    place = data.draw(st.integers(0, len(content) - 1))
                    content[place] ^= data.draw(st.integers(0, 255))
                    spoilt = spoilt or (isinstance(answer, MaskedInput) and place >= 36 + 9)
                    try:
                        parties.server.receive(name, from_bytes(bytes(content), most=MOST))
                    except MessageRefusedError:
                        continue
                else:
                    parties.server.receive(name, answer)
    except SumAbandonedError as error:
        assert error.client == "site-003"  # noqa: PT017 - an abandoned sum is one of two good ends
        return
    total = parties.server.total
    if not (spoilt and "site-003" in total.clients):
        assert {name: words.tolist() for name, words in total.words.items()} == plain_sum(total.clients)


def test_a_server_refuses_a_wrong_cohort() -> None:
    parties = Parties(3)
    for clients in (["a", "b"], ["a", "a", "b"]):
        with pytest.raises(MessageRefusedError, match="clients"):
            ServerSession(parties.terms, clients, verify=parties.identities.verify)


def test_kinds_have_their_own_numbers() -> None:
    assert len({type(message).kind for message in MESSAGES}) == 10
    assert {Invitation, Advert, Confirmation} <= {type(message) for message in MESSAGES}
