"""Blobs between a site and the coordinator's routes, over real sockets, whole and cut."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from hanse.core.errors import ProtocolError, RefusedError, StorageError, StorageFullError, UnreachableError
from hanse.federation.blobs.deltas import Delta, Deltas, encode_delta
from hanse.federation.blobs.store import BlobStore
from hanse.federation.blobs.uploads import Uploads
from hanse.federation.client.connection import Connection, Network
from hanse.federation.client.transfers import Transfers
from hanse.federation.protocol import BASE_HEADER, OFFSET_HEADER, BlobRef
from hanse.federation.server.app import _gone, _hanse_error
from hanse.federation.server.limits import Limits
from hanse.federation.server.listening import Listener, listen
from hanse.federation.server.routes import blobs
from hanse.federation.server.routes.blobs import blobs_routes
from tests.federation.cutting_proxy import cutting


class OpenGuard:
    """Lets everybody in as the site that they say they are."""

    async def site(self, request: Request) -> SimpleNamespace:
        return SimpleNamespace(site=request.headers.get("Hanse-Site", "clinic"), digest="")


@pytest.fixture
def far(tmp_path):
    """The coordinator's side."""
    from fastapi import FastAPI

    from hanse.core.errors import HanseError

    store = BlobStore(tmp_path / "far")
    uploads = Uploads(store, tmp_path / "far-spool", most_bytes=50_000_000)
    hidden: set[str] = set()
    app = FastAPI()
    app.add_exception_handler(HanseError, _hanse_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    routes = blobs_routes(
        OpenGuard(),
        store,
        uploads,
        may_read=lambda site, sha256: sha256 not in hidden,
        deltas=Deltas(store),
        limits=Limits(blob_bytes=1 << 30),
    )
    app.include_router(routes)
    with Listener(app, listen(0, address="127.0.0.1")).in_background() as listener, cutting(listener.port) as proxy:
        yield SimpleNamespace(store=store, uploads=uploads, proxy=proxy, port=listener.port, hidden=hidden)
        uploads.close()


def near(far, tmp_path, name="near", **settings):
    connection = Connection(Network(f"http://127.0.0.1:{far.proxy.port}", proxy="none"))
    return Transfers(connection, tmp_path / name, **settings)


@pytest.fixture
def content():
    return np.random.default_rng(0).bytes(3_000_000)


def until_noticed(far):
    """Until the coordinator has read what came before the cut, and nothing more of it comes for a while."""
    quiet, before = 0, None
    for _ in range(1000):
        partials = list(far.uploads._partials.values())
        now = None if any(partial.writer is not None for partial in partials) else [p.size for p in partials]
        quiet = quiet + 1 if now is not None and now == before else 0
        if quiet >= 20:
            return
        before = now
        threading.Event().wait(0.01)
    pytest.fail("the cut was not noticed")


def ref(content):
    return BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def test_a_blob_goes_up_and_comes_down(far, tmp_path, content):
    file = tmp_path / "update"
    file.write_bytes(content)
    transfers = near(far, tmp_path)
    transfers.send(ref(content), file)
    assert far.store.read(ref(content).sha256) == content
    path = transfers.fetch(ref(content))
    assert path.read_bytes() == content
    before = far.proxy.passed["down"]
    assert transfers.fetch(ref(content)) == path  # from the cache
    assert far.proxy.passed["down"] == before


def test_a_cut_download_goes_on_where_it_stood(far, tmp_path, content):
    far.store.put(content)
    far.proxy.cut("down", 1_000_000, 1_200_000)
    transfers = near(far, tmp_path)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            transfers.fetch(ref(content))
    assert transfers.fetch(ref(content)).read_bytes() == content
    assert far.proxy.passed["down"] < len(content) + 600_000  # what was on its way in the two cuts, and no more


def test_a_cut_upload_goes_on_where_it_stood(far, tmp_path, content):
    file = tmp_path / "update"
    file.write_bytes(content)
    far.proxy.cut("up", 1_000_000, 1_200_000)
    transfers = near(far, tmp_path)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            transfers.send(ref(content), file)
        until_noticed(far)
    transfers.send(ref(content), file)
    assert far.store.read(ref(content).sha256) == content
    assert far.proxy.passed["up"] < len(content) + 600_000


def test_an_upload_that_stands_elsewhere_than_it_was_said_to_goes_on_from_there(far, tmp_path, content, monkeypatch):
    """What was on the way when a connection was cut may arrive after its successor has asked."""
    file = tmp_path / "update"
    file.write_bytes(content)
    far.proxy.cut("up", 1_200_000)
    transfers = near(far, tmp_path)
    with pytest.raises(UnreachableError):
        transfers.send(ref(content), file)
    until_noticed(far)
    asked, real = [], transfers._standing

    def late(blob):
        asked.append(real(blob))
        return asked[-1] - 1000 if len(asked) == 1 else asked[-1]

    monkeypatch.setattr(transfers, "_standing", late)
    transfers.send(ref(content), file)
    assert len(asked) == 2
    assert far.store.read(ref(content).sha256) == content


def test_an_upload_whose_answer_was_lost_is_not_sent_again(far, tmp_path, content):
    file = tmp_path / "update"
    file.write_bytes(content)
    far.proxy.cut("down", 1)
    transfers = near(far, tmp_path)
    with pytest.raises(UnreachableError):
        transfers.send(ref(content), file)
    before = far.proxy.passed["up"]
    transfers.send(ref(content), file)
    assert far.proxy.passed["up"] - before < 10_000
    assert far.store.read(ref(content).sha256) == content


def test_a_coordinator_killed_when_all_had_arrived_keeps_the_blob_in_the_end(far, tmp_path, content):
    file = tmp_path / "update"
    file.write_bytes(content)
    far.proxy.cut("up", 1_000_000)
    transfers = near(far, tmp_path)
    with pytest.raises(UnreachableError):
        transfers.send(ref(content), file)
    until_noticed(far)
    upload = far.uploads.begin("clinic", ref(content).sha256, offset=0, length=len(content))
    upload.write(content)
    upload.stop()  # as a kill leaves it: every byte is here, and nobody has looked at them
    assert far.store.size(ref(content).sha256) is None
    transfers.send(ref(content), file)
    assert far.store.read(ref(content).sha256) == content


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.tuples(st.sampled_from(["up", "down"]), st.integers(1, 400_000)), max_size=4), seed=st.integers(0)
)
def test_any_cuts_end_in_the_same_bytes(far, tmp_path, cuts, seed):
    content = np.random.default_rng(seed).bytes(700_000)
    file = tmp_path / "update"
    file.write_bytes(content)
    far.proxy.mend()
    for direction, after in cuts:
        far.proxy.cut(direction, after)
    transfers = near(far, tmp_path, name=ref(content).sha256[:8])
    for action in (lambda: transfers.send(ref(content), file), lambda: transfers.fetch(ref(content))):
        for _ in range(len(cuts) + 1):
            try:
                action()
            except UnreachableError:
                continue
            break
        else:
            pytest.fail("more failures than cuts")
    assert transfers.fetch(ref(content)).read_bytes() == content


def test_content_that_was_changed_is_dropped_at_both_ends(far, tmp_path, content):
    file = tmp_path / "update"
    file.write_bytes(content[:-1] + b"!")
    transfers = near(far, tmp_path)
    with pytest.raises(RefusedError, match="another SHA-256"):
        transfers.send(ref(content), file)
    assert far.store.size(ref(content).sha256) is None
    good = far.store.put(content)
    far.store.path(good.sha256).write_bytes(content[:-1] + b"!")
    far.store._cache.clear()
    with pytest.raises(ProtocolError, match="it was dropped"):
        transfers.fetch(good)
    assert list((tmp_path / "near").iterdir()) == []


def two_models(far):
    rng = np.random.default_rng(0)
    old = rng.normal(size=500_000).astype(np.float32)
    new = old + np.float32(1e-4) * rng.normal(size=500_000).astype(np.float32)
    return far.store.put(old.tobytes()), far.store.put(new.tobytes()), new.tobytes()


@pytest.fixture
def cut_difference(far, tmp_path):
    """A site that holds an older model, and a part of the difference to the newer one."""
    old, new, content = two_models(far)
    transfers = near(far, tmp_path, deltas="always")
    transfers.fetch(old)
    far.proxy.cut("down", 700_000)
    with pytest.raises(UnreachableError):
        transfers.fetch(new)
    return SimpleNamespace(transfers=transfers, old=old, new=new, content=content)


def test_a_cut_difference_goes_on_where_it_stood(far, tmp_path, cut_difference):
    case = cut_difference
    whole = len(Deltas(far.store).between(case.old.sha256, case.new.sha256).content)
    before = far.proxy.passed["down"]
    assert case.transfers.fetch(case.new).read_bytes() == case.content
    assert far.proxy.passed["down"] - before < whole - 300_000
    assert {path.name for path in (tmp_path / "near").iterdir()} == {case.old.sha256, case.new.sha256}


@pytest.mark.parametrize("now", ["another", None])
def test_a_difference_that_is_another_now_is_sent_anew(far, monkeypatch, cut_difference, now):
    case = cut_difference
    with far.store.open(case.old.sha256) as old, far.store.open(case.new.sha256) as new:
        found = encode_delta(old, new, case.new.size, most_bytes=1 << 30)
    answer = Delta(found, '"another"') if now else None  # of a coordinator with another zstd, or without the base
    monkeypatch.setattr(Deltas, "between", lambda self, base, target: answer)
    assert case.transfers.fetch(case.new).read_bytes() == case.content


@pytest.mark.parametrize("spoilt", [b"", b"garbage", b"hanse-d1" + bytes(9)])
def test_a_spoilt_difference_is_dropped_and_the_whole_asked_for(far, tmp_path, monkeypatch, spoilt):
    old, new, content = two_models(far)
    transfers = near(far, tmp_path, deltas="always")
    transfers.fetch(old)
    monkeypatch.setattr(Deltas, "between", lambda self, base, target: Delta(spoilt, '"spoilt"'))
    with pytest.raises(ProtocolError, match="difference"):
        transfers.fetch(new)
    assert transfers.fetch(new).read_bytes() == content


def test_a_difference_is_encoded_in_one_thread_for_all_that_ask_at_once(far, tmp_path, monkeypatch):
    old, new, content = two_models(far)
    sites = [near(far, tmp_path, name=f"site-{i}", deltas="always") for i in range(5)]
    for site in sites:
        site.fetch(old)
    asked, encoding, all_asked = [], [], threading.Event()
    ask, encode = blobs._Encoder.between, Deltas.between

    async def counted(self, base, target):
        asked.append(target)
        if len(asked) == len(sites):
            all_asked.set()
        return await ask(self, base, target)

    def slowly(self, base, target):
        encoding.append(target)
        assert all_asked.wait(60)
        return encode(self, base, target)

    monkeypatch.setattr(blobs._Encoder, "between", counted)
    monkeypatch.setattr(Deltas, "between", slowly)
    with ThreadPoolExecutor(len(sites)) as pool:
        found = [path.read_bytes() for path in pool.map(lambda site: site.fetch(new), sites)]
    assert found == [content] * len(sites)
    assert len(encoding) == 1


def test_an_upload_that_was_whole_when_the_coordinator_was_killed_is_kept_after_all(
    far, tmp_path, monkeypatch, content
):
    file = tmp_path / "update"
    file.write_bytes(content)
    complete, killed = Uploads.complete, []

    def dies_once(self, *args):
        if not killed:
            killed.append(self)
            raise StorageError("killed between the last byte and the blob's place in the store")
        return complete(self, *args)

    monkeypatch.setattr(Uploads, "complete", dies_once)
    transfers = near(far, tmp_path)
    with pytest.raises(StorageError, match="killed"):
        transfers.send(ref(content), file)
    far.uploads._partials.clear()  # a new process knows the file alone
    before = far.proxy.passed["up"]
    transfers.send(ref(content), file)
    assert far.store.read(ref(content).sha256) == content
    assert far.proxy.passed["up"] - before < 10_000


def test_a_file_that_is_not_what_it_was_is_not_sent(far, tmp_path, content):
    transfers = near(far, tmp_path)
    with pytest.raises(StorageError, match="can't be read"):
        transfers.send(ref(content), tmp_path / "gone")
    (tmp_path / "short").write_bytes(content[:-1])
    with pytest.raises(StorageError, match="2,999,999 bytes"):
        transfers.send(ref(content), tmp_path / "short")


def test_no_write_to_a_socket_is_so_large_that_a_slow_link_runs_into_its_time_out(tmp_path, content):
    pieces = []

    class Listening:
        def request(self, method, target, *, body=b"", headers=None, digest=None):
            pieces.extend(body())
            return nullcontext(SimpleNamespace(read=lambda size: b""))

    file = tmp_path / "update"
    file.write_bytes(content)
    Transfers(Listening(), tmp_path / "near").send(ref(content), file)
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 65536  # 30 s for each: 2 kB/s are enough


def test_memory_stays_flat_whatever_the_blob_holds(far, tmp_path):
    far.uploads._most_bytes = 1 << 30
    file, digest = tmp_path / "large", hashlib.sha256()
    with file.open("wb") as out:
        for number in range(200):
            piece = number.to_bytes(4, "big") * 250_000
            out.write(piece)
            digest.update(piece)
    blob = BlobRef(sha256=digest.hexdigest(), size=200_000_000)
    transfers = near(far, tmp_path)
    tracemalloc.start()
    try:
        transfers.send(blob, file)
        assert transfers.fetch(blob).stat().st_size == blob.size
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_at_the_site_is_said(far, tmp_path, content):
    good = far.store.put(content)
    transfers = near(far, tmp_path)
    part = tmp_path / "near" / f"{good.sha256}.part"
    part.symlink_to("/dev/full")
    with pytest.raises(StorageFullError, match="takes no more blobs"):
        transfers.fetch(good)
    part.unlink()
    assert transfers.fetch(good).read_bytes() == content


def test_a_difference_is_sent_over_a_slow_line_and_gives_the_same_bytes(far, tmp_path):
    first, second, content = two_models(far)
    slow = iter(range(0, 10_000, 10))
    for deltas, clock, saves in (("never", None, False), ("always", None, True), ("auto", lambda: next(slow), True)):
        more = {} if clock is None else {"clock": clock}
        transfers = near(far, tmp_path, name=deltas, deltas=deltas, **more)
        transfers.fetch(first)
        before = far.proxy.passed["down"]
        assert transfers.fetch(second).read_bytes() == content
        assert (far.proxy.passed["down"] - before < 0.9 * second.size) is saves


def test_the_cache_keeps_what_was_used_last_and_what_is_wanted(far, tmp_path):
    refs = [far.store.put(bytes([i]) * 1000) for i in range(6)]
    transfers = near(far, tmp_path, cache_bytes=3000)
    transfers.use([refs[0].sha256])
    for each in refs:
        transfers.fetch(each)
    names = {path.name for path in (tmp_path / "near").iterdir()}
    assert refs[0].sha256 in names
    assert refs[-1].sha256 in names
    assert len(names) <= 4


def test_refusals(far, tmp_path, content):
    connection = Connection(Network(f"http://127.0.0.1:{far.port}", proxy="none"))
    good = far.store.put(content)
    far.hidden.add(good.sha256)
    with pytest.raises(RefusedError, match="no blob"):
        connection.request("GET", f"/v1/blobs/{good.sha256}")
    for target in ("/v1/blobs/..%2F..%2Fetc%2Fpasswd", "/v1/blobs/xyz", f"/v1/blobs/{'A' * 64}"):
        with pytest.raises((RefusedError, ProtocolError)):
            connection.request("GET", target)
        with pytest.raises((RefusedError, ProtocolError)):
            connection.request("PUT", target, body=b"x")
    far.hidden.clear()
    for header in ("bytes=5-1", "bytes=3000000-", "bytes=-5", "lines=1-2", "bytes=99999999999999999999-"):
        with pytest.raises(RefusedError, match="does not lie within"):
            connection.request("GET", f"/v1/blobs/{good.sha256}", headers={"Range": header})
    with pytest.raises(ProtocolError, match="is no blob's name"):
        connection.request("GET", f"/v1/blobs/{good.sha256}", headers={BASE_HEADER: "../x"})
    with connection.request("GET", f"/v1/blobs/{good.sha256}", headers={"Range": "bytes=10-19"}) as answer:
        assert (answer.status, answer.read_all(most=100)) == (206, content[10:20])
    fresh = hashlib.sha256(b"fresh").hexdigest()
    for offset in ("-1", "x", "9" * 30, "1.5"):
        with pytest.raises(RefusedError, match="no number of bytes"):
            connection.request("PUT", f"/v1/blobs/{fresh}", body=b"fresh", headers={OFFSET_HEADER: offset})
    with pytest.raises(RefusedError, match="stands at byte 0"):
        connection.request("PUT", f"/v1/blobs/{fresh}", body=b"resh", headers={OFFSET_HEADER: "1"})
    with pytest.raises(RefusedError, match="may hold"):
        connection.request("PUT", f"/v1/blobs/{fresh}", body=b"x", headers={"Content-Length": "60000000"})
    with pytest.raises(RefusedError, match="this site takes 10 B"):
        near(far, tmp_path, most_bytes=10).fetch(good)
