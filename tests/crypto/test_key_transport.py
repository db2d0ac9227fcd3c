"""A letter opens for its receiver, from its sender, for its purpose, unchanged; and else not at all."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import EncodingError, HanseError, RefusedError, SettingError
from hanse.crypto.key_transport import TransportKey, fingerprint, make_transport_key, unwrap_key, wrap_key

SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SENDER = SIGNING.public_key().public_bytes_raw()
RECEIVER = make_transport_key()


def letter(secret: bytes = b"the key", *, context: bytes = b"run 7") -> bytes:
    return wrap_key(secret, receiver=RECEIVER.public, signing_key=bytes(range(32)), context=context)


def opened(sent: bytes, *, key: TransportKey = RECEIVER, sender: bytes = SENDER, context: bytes = b"run 7") -> bytes:
    return unwrap_key(sent, key=key, sender=sender, context=context)


@pytest.mark.parametrize("secret", [b"x", bytes(32), bytes(1 << 17)])
def test_there_and_back(secret: bytes) -> None:
    sent = letter(secret)
    assert opened(sent) == secret
    assert len(sent) == len(secret) + 153
    assert letter(secret) != sent


def test_others_cannot_open_it() -> None:
    with pytest.raises(RefusedError, match="somebody else"):
        opened(letter(), key=make_transport_key())
    with pytest.raises(RefusedError, match="another purpose"):
        opened(letter(), context=b"run 8")
    mixed = TransportKey(RECEIVER.public, make_transport_key().private)
    with pytest.raises(RefusedError):
        opened(letter(), key=mixed)


def test_only_the_named_sender_is_believed() -> None:
    other = Ed25519PrivateKey.generate()
    theirs = wrap_key(b"bad", receiver=RECEIVER.public, signing_key=other.private_bytes_raw(), context=b"run 7")
    with pytest.raises(RefusedError, match=r"only .* may send it"):
        opened(theirs)
    renamed = theirs[:5] + SENDER + theirs[37:]  # another's letter under the sender's name
    with pytest.raises(RefusedError, match="changed on its way"):
        opened(renamed)


def test_a_letter_is_not_turned_to_another_receiver() -> None:
    """Who opens a letter can't send it on as if its sender had written to somebody else."""
    third = make_transport_key()
    with pytest.raises(RefusedError):
        opened(letter(), key=third)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_change_is_refused(data: st.DataObject) -> None:
    good = letter(bytes(100))
    changed = bytearray(good)
    at = data.draw(st.integers(0, len(good) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([len(good), at]))
    with pytest.raises((RefusedError, EncodingError)):
        opened(bytes(changed[:cut]))


def test_weak_keys_are_refused() -> None:
    for weak in (bytes(32), (1).to_bytes(32, "little")):
        with pytest.raises(SettingError, match="weak"):
            wrap_key(b"x", receiver=weak, signing_key=bytes(range(32)), context=b"")


def test_bad_arguments() -> None:
    for bad in ({"secret": b""}, {"secret": bytes((1 << 22) + 1)}, {"receiver": bytes(31)}, {"signing_key": bytes(33)}):
        given = {"secret": b"x", "receiver": RECEIVER.public, "signing_key": bytes(range(32)), "context": b""} | bad
        with pytest.raises(SettingError):
            wrap_key(given.pop("secret"), **given)
    with pytest.raises(SettingError):
        opened(letter(), sender=bytes(3))
    with pytest.raises(EncodingError):
        opened(b"")
    with pytest.raises(EncodingError, match="don't belong"):
        opened(letter() + b"\0")


def test_nothing_shows_the_secret() -> None:
    assert RECEIVER.private.hex() not in repr(RECEIVER)
    assert str(RECEIVER.private) not in repr(RECEIVER)
    try:
        opened(letter(b"password")[:-1])
    except HanseError as error:
        assert "password" not in str(error)  # noqa: PT017


def test_fingerprints() -> None:
    assert fingerprint(SENDER) != fingerprint(RECEIVER.public)
    assert len(fingerprint(SENDER)) == 39
