"""Python's garbage collector, for the length of a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def set_aside() -> Iterator[None]:
    """Let the collector pass over everything that is alive now, mostly modules, until the end.

    It would look at each of these hundreds of thousands of objects again and again, for some per cent of a
    round's time, and they stay anyway. What is made inside is collected as ever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
