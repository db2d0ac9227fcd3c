"""Blobs between a site and its coordinator: each goes on where it was cut, and counts only if its SHA-256 is right.

One attempt is one call: it moves what it can, and raises `UnreachableError` where the connection is lost. The next call
goes on from there; how often, and how soon, is the caller's.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from hanse.core.errors import ProtocolError, RefusedError, StorageError, UnreachableError, UpdateError
from hanse.core.units import format_bytes
from hanse.federation.blobs.deltas import apply_delta
from hanse.federation.blobs.files import file_error
from hanse.federation.blobs.store import check_name
from hanse.federation.client.blob_cache import BlobCache, file_sha256
from hanse.federation.protocol import BASE_HEADER, ENCODING_HEADER, OFFSET_HEADER, BlobRef

SLOW_BYTES_A_SECOND = 10e6
"""Below this, a difference is asked for: packing and unpacking one costs both ends more than a fast link saves."""

NOTICEABLE_SECONDS = 1.0
"""A download that took less is not worth shortening, however slow the link seemed."""

_READ = 1 << 18
_SENT = 1 << 16  # at once: a socket's time-out is for all of it, and a link may be slow
_MEASURABLE = 256 << 10  # smaller downloads say nothing about the link
_LARGE = 8 << 20  # an earlier process may have begun with it, and it is worth asking
_TRIES = 5  # of an upload that stands elsewhere than it was said to
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})")


class Answer(Protocol):
    """An answer whose body is read piece by piece."""

    status: int
    headers: Mapping[str, str]

    def read(self, size: int) -> bytes:
        """The next bytes, none at the end."""
        ...

    def __enter__(self) -> Answer: ...

    def __exit__(self, *_: object) -> None: ...


class Requester(Protocol):
    """Sends requests to the coordinator, as `Connection` does."""

    def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Callable[[], Iterator[bytes]] = b"",
        headers: Mapping[str, str] | None = None,
        digest: str | None = None,
    ) -> Answer:
        """Send a signed request; the answer is a success."""
        ...


@dataclass(frozen=True)
class _Begun:
    """A difference that was cut: to which base, the name of its bytes, and how many there are."""

    base: str
    etag: str
    size: int


class Transfers:
    """Downloads into a cache folder, uploads from files; used by several threads at once.

    Args:
      requester: Sends the requests.
      folder: Of the cache.
      most_bytes: Of one blob.
      cache_bytes: Of all blobs in the cache but those in use; the ones used last stay.
      deltas: Whether differences are asked for: ``"auto"`` where the last download was slower than
        `SLOW_BYTES_A_SECOND`, ``"always"`` or ``"never"``.
      clock: Seconds that only go forward.

    Raises:
      StorageError: The folder can't be written.
    """

    def __init__(
        self,
        requester: Requester,
        folder: Path,
        *,
        most_bytes: int = 64 << 30,
        cache_bytes: int = 2 << 30,
        deltas: str = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requester = requester
        self._cache = BlobCache(folder, most_bytes=cache_bytes)
        self._most_bytes = most_bytes
        self._deltas = deltas
        self._clock = clock
        self._slow = False
        self._lock = Lock()
        self._sending: set[str] = set()  # that were cut: the next attempt asks how much has arrived
        self._differences: dict[str, _Begun] = {}

    def fetch(self, blob: BlobRef) -> Path:
        """The file of a blob, downloaded unless it is here.

        Raises:
          UnreachableError: The connection was cut; what came stays, and the next call goes on.
          ProtocolError: What came has another SHA-256, and was dropped.
          RefusedError: The coordinator does not let this site have it, or it is too large.
          StorageFullError: There is no room for it.
        """
        check_name(blob.sha256)
        if blob.size > self._most_bytes:
            raise RefusedError(
                f"a blob of {format_bytes(blob.size)} is offered; this site takes {format_bytes(self._most_bytes)}",
                code="size",
            )
        with self._cache.turn(blob.sha256):
            try:
                return self._cache.find(blob) or self._cache.add(blob, self._downloaded(blob))
            except OSError as error:
                raise file_error(error, self._cache.part(blob.sha256)) from error

    def send(self, blob: BlobRef, path: Path) -> None:
        """Upload a blob from its file, from where the coordinator has it.

        Raises:
          UnreachableError: The connection was cut; the next call goes on.
          RefusedError: The coordinator does not take it.
          StorageError: The file is gone, or not the one that it was.
        """
        try:
            size = path.stat().st_size
        except OSError as error:
            raise StorageError(f"`{path}` was to be sent and can't be read: {error.strerror or error}") from error
        if size != blob.size:
            raise StorageError(f"`{path}` was to be sent and has {size:,} bytes; there were {blob.size:,}")
        with self._lock:
            ask = blob.sha256 in self._sending or blob.size >= _LARGE
            self._sending.add(blob.sha256)
        # also where every byte has arrived: only the answer to a PUT says that they are the blob, and kept
        for tries_left in reversed(range(_TRIES)):
            try:
                self._put(blob, path, self._standing(blob) if ask else 0)
                break
            except RefusedError as error:
                if error.code != "offset" or not tries_left:
                    raise
                ask = True  # what was on the way when the connection was cut has arrived since
        with self._lock:
            self._sending.discard(blob.sha256)

    def use(self, blobs: Collection[str]) -> None:
        """Say which blobs are in use: the cache keeps these, however many they are.

        Args:
          blobs: SHA-256 of those that somebody still wants.
        """
        self._cache.use(blobs)

    def _standing(self, blob: BlobRef) -> int:
        with self._requester.request("HEAD", f"/v1/uploads/{blob.sha256}") as answer:
            text = answer.headers.get(OFFSET_HEADER, "")
        if not text:
            raise UnreachableError("the connection was cut in an answer's headers")
        if not (text.isascii() and text.isdigit()) or int(text[:16]) > blob.size:
            raise ProtocolError(f"the coordinator says that {text[:40]!r} bytes of a blob of {blob.size:,} arrived")
        return int(text)

    def _put(self, blob: BlobRef, file: Path, offset: int) -> None:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size - offset)}
        if offset:
            headers[OFFSET_HEADER] = str(offset)
        target = f"/v1/blobs/{blob.sha256}"
        body = (lambda: _pieces(file, offset)) if offset < blob.size else b""
        with self._requester.request("PUT", target, body=body, headers=headers, digest=blob.sha256) as answer:
            while answer.read(_READ):
                pass

    def _downloaded(self, blob: BlobRef) -> Path:
        """A file with the blob's content, which was checked."""
        part = self._cache.part(blob.sha256)
        standing = _size(part)
        base = self._base(blob) if standing == 0 else None
        if base is not None:
            found = self._by_difference(blob, part, base)
        elif standing < blob.size or not part.is_file():
            found = self._whole(blob, part, standing)
        else:
            found = file_sha256(part)
        if found != blob.sha256:
            part.unlink(missing_ok=True)
            self._cache.unlike(blob)
            raise ProtocolError(
                f"blob `{blob.sha256[:12]}…` came with the SHA-256 {found[:12]}…; it was dropped",
                hint="something on the way changes what is sent, or the coordinator's store is damaged",
            )
        return part

    def _whole(self, blob: BlobRef, part: Path, standing: int) -> str:
        """Download the blob itself, from where it stands; returns its SHA-256."""
        headers = {"Range": f"bytes={standing}-"} if standing else {}
        began = self._clock()
        with self._requester.request("GET", f"/v1/blobs/{blob.sha256}", headers=headers) as answer:
            return self._receive_whole(answer, blob, part, began)

    def _receive_whole(self, answer: Answer, blob: BlobRef, part: Path, began: float) -> str:
        start, _ = _extent(answer, part)
        digest = hashlib.sha256()
        for piece in _pieces(part, 0) if start else ():
            digest.update(piece)
        end = _receive(answer, part, at=start, most=blob.size, digest=digest)
        self._finish(blob, end, blob.size, end - start, began)
        return digest.hexdigest()

    def _by_difference(self, blob: BlobRef, part: Path, base: Path) -> str:
        """Download the difference to `base` and apply it, or the blob where none is sent; returns its SHA-256."""
        packed = self._cache.part(blob.sha256, kind="delta")
        begun = self._differences.get(blob.sha256)
        if begun is not None and begun.base != base.name:
            begun = None
        if begun is None or _size(packed) != begun.size:
            headers = {BASE_HEADER: base.name}
            if begun is not None and (standing := _size(packed)):
                headers |= {"Range": f"bytes={standing}-", "If-Range": begun.etag}
            began = self._clock()
            with self._requester.request("GET", f"/v1/blobs/{blob.sha256}", headers=headers) as answer:
                if answer.headers.get(ENCODING_HEADER) != "delta":
                    self._drop_difference(blob, packed)
                    return self._receive_whole(answer, blob, part, began)
                start, size = _extent(answer, packed)
                self._differences[blob.sha256] = _Begun(base.name, answer.headers.get("ETag", ""), size)
                end = _receive(answer, packed, at=start, most=blob.size)
                self._finish(blob, end, size, end - start, began)
        try:
            with base.open("rb") as old, packed.open("rb") as delta, part.open("wb") as new:
                found = apply_delta(old, delta, new, blob.size)
        except (UpdateError, FileNotFoundError) as error:
            part.unlink(missing_ok=True)
            self._drop_difference(blob, packed)
            self._cache.unlike(blob)  # the next call asks for the whole
            raise ProtocolError(str(error)) from error
        except OSError:
            part.unlink(missing_ok=True)  # the next call applies the difference again, once there is room
            raise
        self._drop_difference(blob, packed)
        return found

    def _drop_difference(self, blob: BlobRef, packed: Path) -> None:
        self._differences.pop(blob.sha256, None)
        packed.unlink(missing_ok=True)

    def _base(self, blob: BlobRef) -> Path | None:
        """A blob that is here, of the same size, where it is worth asking for the difference."""
        if self._deltas == "never" or (self._deltas == "auto" and not self._slow):
            return None
        return self._cache.resembling(blob)

    def _finish(self, blob: BlobRef, end: int, wanted: int, received: int, began: float) -> None:
        """Notice a cut, and how fast the link was."""
        if end < wanted:
            raise UnreachableError(f"the connection was cut after {end:,} of {wanted:,} bytes")
        seconds = self._clock() - began
        if received >= _MEASURABLE and seconds > 0:
            noticeable = seconds * blob.size > NOTICEABLE_SECONDS * received  # had the whole blob been sent
            self._slow = noticeable and received < SLOW_BYTES_A_SECOND * seconds


def _extent(answer: Answer, file: Path) -> tuple[int, int]:
    """Where in `file` the body belongs, and the size of what it is a part of."""
    if answer.status != HTTPStatus.PARTIAL_CONTENT:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() and len(length) < 16 else 0
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != _size(file):
        raise ProtocolError(f"the rest of a blob was asked for from byte {_size(file):,}, and another part was sent")
    return int(found[1]), int(found[2])


def _receive(answer: Answer, file: Path, *, at: int, most: int, digest: Any = None) -> int:
    """Write the body from byte `at` on; what came before a cut stays in the file. Returns where it ends."""
    with file.open("r+b" if at else "wb", buffering=0) as out:
        out.seek(at)
        while piece := answer.read(_READ):
            if at + len(piece) > most:
                raise ProtocolError(f"more than the {most:,} bytes of a blob were sent")
            if out.write(piece) != len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a full disk takes a part and says nothing
            if digest is not None:
                digest.update(piece)
            at += len(piece)
    return at


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _pieces(file: Path, offset: int) -> Iterator[bytes]:
    with file.open("rb", buffering=0) as source:
        source.seek(offset)
        while piece := source.read(_SENT):
            yield piece
