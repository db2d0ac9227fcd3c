"""Messages between processes of one machine, with their arrays in shared memory.

Only for a process and the children it started itself: what travels here is pickled, and nothing that came
over a network ever is.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from hanse.core.errors import RunError

_ALIGN = 64  # bytes; a cache line, and the widest vector load


@dataclass(frozen=True)
class Parcel:
    """A message whose arrays lie in a shared block.

    Args:
      block: Name of the shared block; empty where the message holds no arrays.
      header: The pickled rest.
      layout: `(offset, bytes)` of each array.
    """

    block: str
    header: bytes
    layout: tuple[tuple[int, int], ...]


class Outbox:
    """A shared block that one process writes messages into, one at a time; it grows as needed."""

    def __init__(self) -> None:
        self._block: SharedMemory | None = None

    def pack(self, message: Any) -> Parcel:
        """Write a message's arrays into the block; what lay there before is overwritten."""
        buffers: list[pickle.PickleBuffer] = []
        header = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        layout, end = [], 0
        for view in views:
            layout.append((end, view.nbytes))
            end += -(-view.nbytes // _ALIGN) * _ALIGN
        if not end:
            # arrays without elements need no block, and one can't be mapped
            return Parcel("", header, tuple(layout))
        block = self._room(end)
        memory = _memory(block)
        for view, (offset, size) in zip(views, layout, strict=True):
            memory[offset : offset + size] = view
        return Parcel(block.name, header, tuple(layout))

    def close(self) -> None:
        """Remove the block; safe to call twice."""
        if self._block is not None:
            release(self._block)
            self._block = None

    def _room(self, size: int) -> SharedMemory:
        if self._block is None or self._block.size < size:
            self.close()
            self._block = _new_block(size)
        return self._block


def _new_block(size: int) -> SharedMemory:
    block = SharedMemory(create=True, size=size)
    try:
        if hasattr(os, "posix_fallocate"):
            # a block is given room only as it is written to, and where there is none then, the process is killed
            os.posix_fallocate(block._fd, 0, size)  # type: ignore[attr-defined]
    except OSError as error:
        release(block)
        raise RunError(
            f"shared memory has no room for a message of {size:,} bytes: {error.strerror}",
            hint="use workers = 1, or enlarge /dev/shm (in a container: --shm-size)",
        ) from error
    return block


class Inbox:
    """Reads what an `Outbox` of another process wrote; keeps the blocks attached."""

    def __init__(self) -> None:
        self._blocks: dict[str, SharedMemory] = {}

    def unpack(self, parcel: Parcel, *, copy: bool) -> Any:
        """The message.

        Args:
          parcel: As it came.
          copy: Arrays of their own, which stay; else views, valid until the writer's next message.
        """
        if not parcel.block:
            return pickle.loads(parcel.header, buffers=[bytearray() for _ in parcel.layout])  # noqa: S301 - see above
        memory = _memory(self._attach(parcel.block))
        views = [memory[offset : offset + size] for offset, size in parcel.layout]
        buffers = [bytearray(view) for view in views] if copy else views
        return pickle.loads(parcel.header, buffers=buffers)  # noqa: S301 - from a process of our own, see above

    def close(self, *, remove: bool = False) -> None:
        """Detach; with `remove` also delete the blocks (of a writer that is gone)."""
        for block in self._blocks.values():
            release(block, remove=remove)
        self._blocks.clear()

    def _attach(self, name: str) -> SharedMemory:
        if name not in self._blocks:
            self.close()  # the writer made a larger block, and the old one is gone
            self._blocks[name] = SharedMemory(name=name)
        return self._blocks[name]


def _memory(block: SharedMemory) -> memoryview:
    assert block.buf is not None  # only after close
    return block.buf


def release(block: SharedMemory, *, remove: bool = True) -> None:
    """Detach from a block, and delete it; views that are still alive keep the memory, not the name."""
    try:
        block.close()
    except BufferError:
        # arrays still look at the block; the mapping goes with the last of them. Without this the block's own
        # finaliser would try again and complain
        block._buf = None  # type: ignore[attr-defined]
        block._mmap = None  # type: ignore[attr-defined]
        block.close()
    if remove:
        try:
            block.unlink()
        except FileNotFoundError:
            return
