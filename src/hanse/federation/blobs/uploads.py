"""Uploads that resume: what came of a blob before its connection was cut stays, and the next connection goes on there.

Bytes go to a spool file for each uploader and blob, and through SHA-256 as they come; what comes whole, and is small,
goes straight to the store. A blob is kept only if its content has the name that it was announced by; if not, all of it
is dropped.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from hanse.core.errors import HanseError, RefusedError
from hanse.core.units import format_bytes
from hanse.federation.blobs.files import file_error
from hanse.federation.blobs.store import BlobStore
from hanse.federation.protocol import BlobRef

_PIECE = 1 << 20
_KEPT_SECONDS = 24 * 3600.0
_EXPIRE_EVERY_SECONDS = 3600.0


@dataclass(eq=False)
class _Partial:
    path: Path
    digest: Any
    size: int
    touched: float
    writer: Upload | None = field(default=None)
    lock: Lock = field(default_factory=Lock)


class Uploads:
    """All uploads that are not complete; used by several threads at once.

    Args:
      store: Where complete blobs go.
      spool: Folder of what is not complete; on the store's own disk, so that a blob is renamed and not copied.
      most_bytes: Of one blob.
      most_open: Partial blobs of one uploader.
      kept_s: Seconds that a partial blob is kept without anybody going on with it.
      clock: Seconds since 1970.
    """

    def __init__(
        self,
        store: BlobStore,
        spool: Path,
        *,
        most_bytes: int = 64 << 30,
        most_open: int = 64,
        kept_s: float = _KEPT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._spool = spool
        self._most_bytes = most_bytes
        self._most_open = most_open
        self._kept_s = kept_s
        self._clock = clock
        self._partials: dict[tuple[str, str], _Partial] = {}
        self._lock = Lock()  # of who writes to which
        self._looked = clock()
        self._numbers = itertools.count()

    def is_slow(self, offset: int) -> bool:
        """Whether `begin` at this offset may take long: it asks over a network, or reads what is there once more."""
        return offset > 0 or self._store.remote

    def offset(self, uploader: str, sha256: str) -> int:
        """Bytes of the blob that are here; all of them where it is complete.

        Raises:
          StorageError: That is no blob's name.
        """
        complete = self._store.expect(sha256)
        if complete is not None:
            return complete
        partial = self._known(uploader, sha256)
        return partial.size if partial is not None else 0

    def begin(self, uploader: str, sha256: str, *, offset: int, length: int | None) -> Upload | None:
        """Go on with a blob at `offset`; None where it is complete already. Who wrote to it before writes no more.

        Args:
          uploader: Who sends.
          sha256: The blob's name.
          offset: Of the first byte that will come.
          length: Bytes that will come, where that is known.

        Raises:
          RefusedError: `offset` is not where the blob stands, it would be too large, or too many are open.
          StorageError: That is no blob's name, or nothing can be written.
        """
        if self._store.expect(sha256) is not None:
            return None
        if length is not None and offset + length > self._most_bytes:
            raise _too_large(self._most_bytes)
        self._expire_now_and_then()
        partial = self._known(uploader, sha256) if offset else None
        with self._lock:
            if offset == 0:
                partial = self._new(uploader, sha256)
            elif partial is None or self._partials.get((uploader, sha256)) is not partial:
                raise _wrong_offset(sha256, 0, offset)
            if partial.writer is not None:
                partial.writer.stop()  # what it could not write down is not there
            if offset != partial.size:
                raise _wrong_offset(sha256, partial.size, offset)
            upload = partial.writer = Upload(self, uploader, sha256, partial, self._most_bytes)
            return upload

    def expire(self, *, older_than_s: float) -> int:
        """Drop partial blobs that nobody went on with for so long; returns how many."""
        before, gone = self._clock() - older_than_s, 0
        with self._lock:
            for key, partial in tuple(self._partials.items()):
                if partial.writer is None and partial.touched < before:
                    self._drop(*key)
                    gone += 1
        known = {partial.path for partial in tuple(self._partials.values())}
        for path in self._spool.glob("*/*.part"):  # of an earlier process
            with suppress(OSError):
                if path not in known and path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
        return gone

    def close(self) -> None:
        """Let go of open files; what came stays."""
        for partial in tuple(self._partials.values()):
            if partial.writer is not None:
                partial.writer.stop()

    def complete(self, uploader: str, sha256: str, partial: _Partial, content: bytes | None) -> BlobRef:
        """Give the store a partial blob if its content has its name; for `Upload` alone.

        Args:
          uploader: Who sent it.
          sha256: The blob's name.
          partial: Whose writer has stopped.
          content: All of it, where nothing was written down.
        """
        with self._lock:  # from here on nobody else touches the file, not even who starts anew with this blob
            if self._partials.get((uploader, sha256)) is not partial:
                raise _taken_over(sha256)
            del self._partials[uploader, sha256]
            whole = partial.path.with_name(f"{sha256}.{next(self._numbers)}.part")
            if content is None:
                try:
                    partial.path.replace(whole)
                except OSError as error:
                    raise file_error(error, whole) from error
        found = partial.digest if content is None else hashlib.sha256(content)
        if found.hexdigest() != sha256:
            if content is None:
                whole.unlink(missing_ok=True)
            raise RefusedError(
                f"the content of blob `{sha256[:12]}…` has another SHA-256; all {partial.size:,} bytes were dropped",
                hint="something changed it on the way, or the sender's file was changed; send it again from the start",
                code="content",
            )
        ref = BlobRef(sha256=sha256, size=partial.size)
        if content is None:
            self._store.adopt(whole, ref)
        else:
            self._store.keep(content, ref)
        return ref

    def _known(self, uploader: str, sha256: str) -> _Partial | None:
        partial = self._partials.get((uploader, sha256))
        if partial is not None:
            return partial
        path = self._path(uploader, sha256)
        if not path.is_file():
            return None
        digest, size = hashlib.sha256(), 0  # of an earlier process: what is there is read once more
        try:
            with path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
        except OSError as error:
            raise file_error(error, path) from error
        return self._partials.setdefault((uploader, sha256), _Partial(path, digest, size, self._clock()))

    def _new(self, uploader: str, sha256: str) -> _Partial:
        """Start anew, whatever was there."""
        if (uploader, sha256) in self._partials:
            self._drop(uploader, sha256)
        if sum(1 for owner, _ in self._partials if owner == uploader) >= self._most_open:
            raise _too_many(uploader, self._most_open)
        path = self._path(uploader, sha256)
        partial = self._partials[uploader, sha256] = _Partial(path, hashlib.sha256(), 0, self._clock())
        return partial

    def _drop(self, uploader: str, sha256: str) -> None:
        partial = self._partials.pop((uploader, sha256))
        if partial.writer is not None:
            partial.writer.stop()
        partial.path.unlink(missing_ok=True)

    def _path(self, uploader: str, sha256: str) -> Path:
        owner = hashlib.sha256(uploader.encode()).hexdigest()[:16]
        return self._spool / owner / f"{sha256}.part"

    def _expire_now_and_then(self) -> None:
        if self._clock() - self._looked > _EXPIRE_EVERY_SECONDS:
            self._looked = self._clock()
            self.expire(older_than_s=self._kept_s)

    def make_room(self, uploader: str, path: Path) -> None:
        """Make the folder of a spool file, unless the uploader has too many there; for `Upload` alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if sum(1 for other in path.parent.iterdir() if other != path) >= self._most_open:
            raise _too_many(uploader, self._most_open)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()


class Upload:
    """One connection's part of an upload; made by `Uploads.begin`."""

    def __init__(self, uploads: Uploads, uploader: str, sha256: str, partial: _Partial, most_bytes: int) -> None:
        self._uploads = uploads
        self._uploader = uploader
        self._sha256 = sha256
        self._partial = partial
        self._most_bytes = most_bytes
        self._file: BinaryIO | None = None
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._stopped = False

    @property
    def received(self) -> int:
        """Bytes of the blob that are here."""
        return self._partial.size

    def write(self, piece: bytes) -> None:
        """Take the next bytes; they are written down a megabyte at a time, and when the connection ends.

        Raises:
          RefusedError: Another connection goes on with this blob, or it becomes too large.
          StorageError: They can't be written; what was written before stays.
        """
        partial = self._partial
        with partial.lock:
            if self._stopped:
                raise _taken_over(self._sha256)
            if partial.size + len(piece) > self._most_bytes:
                raise _too_large(self._most_bytes)
            self._pending.append(piece)
            self._pending_size += len(piece)
            partial.size += len(piece)
            if self._pending_size >= _PIECE:
                self._write_down()

    def finish(self) -> BlobRef:
        """All bytes have come: keep the blob if its content has its name.

        Raises:
          RefusedError: It has not; all of it was dropped.
          StorageError: It can't be kept.
        """
        partial = self._partial
        with partial.lock:
            if self._stopped:
                raise _taken_over(self._sha256)
            content = None
            if partial.size == self._pending_size:
                content, self._pending = b"".join(self._pending), []
            else:
                self._write_down()
            self._close()
        return self._uploads.complete(self._uploader, self._sha256, partial, content)

    def stop(self) -> None:
        """Write no more; what came stays for whoever goes on."""
        with self._partial.lock:
            if not self._stopped:
                with suppress(HanseError):  # a full disk: what can't be written is sent again
                    self._write_down()
                self._close()

    def _close(self) -> None:
        self._stopped = True
        self._partial.touched = self._uploads.now()
        if self._partial.writer is self:
            self._partial.writer = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_down(self) -> None:
        partial, content = self._partial, b"".join(self._pending)
        on_disk = partial.size - self._pending_size
        self._pending, self._pending_size = [], 0
        if not content:
            return
        try:
            if self._file is None:
                if not on_disk:
                    self._uploads.make_room(self._uploader, partial.path)
                self._file = partial.path.open("r+b" if on_disk else "wb", buffering=0)
                self._file.seek(on_disk)
            if self._file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a full disk takes a part and says nothing
        except (OSError, RefusedError) as error:
            partial.size = on_disk
            with suppress(OSError):
                os.truncate(partial.path, on_disk)
            self._close()
            if isinstance(error, RefusedError):
                raise
            raise file_error(error, partial.path) from error
        partial.digest.update(content)


def _taken_over(sha256: str) -> RefusedError:
    return RefusedError(f"another connection goes on with the upload of blob `{sha256[:12]}…`", code="superseded")


def _too_large(most_bytes: int) -> RefusedError:
    return RefusedError(f"a blob may hold {format_bytes(most_bytes)}, and this one is larger", code="size")


def _too_many(uploader: str, most: int) -> RefusedError:
    return RefusedError(f"`{uploader}` has {most} uploads open already", hint="finish one of them first", code="busy")


def _wrong_offset(sha256: str, standing: int, offset: int) -> RefusedError:
    return RefusedError(
        f"the upload of blob `{sha256[:12]}…` stands at byte {standing:,}, and was gone on with at {offset:,}",
        hint="ask for its offset first: HEAD /v1/uploads/{sha256}",
        code="offset",
    )
