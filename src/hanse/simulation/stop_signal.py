"""Ctrl-C as a wish, not an accident: the run stops after the client at hand and can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has asked to stop; a second SIGINT stops at once.

    Outside the main thread no handler can be set, and nothing is ever asked.
    """
    asked = False  # no `threading.Event`: its lock would block a second signal that arrives while it is being set
    if threading.current_thread() is not threading.main_thread():
        yield lambda: asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            # None: a handler that is not Python's own, which can't be put back from here
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
