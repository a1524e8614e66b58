"""Python's garbage collector, told what an engine's process is like."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG, OLDER, OLDEST = 100_000, 20, 500
"""Allocations until the young are looked at, and so on: about twice a batch."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """An engine makes no cycles: batches of messages are freed by their counts. At Python's own thresholds the
    collector looks through each batch a hundred times, and at times through all states: a tenth of all work."""
    _told.begin()
    try:
        yield
    finally:
        _told.end()


class _Told:
    """Several engines may run in one interpreter: the first tells the collector, the last puts it back."""

    def __init__(self) -> None:
        self._lock, self._engines, self._before = threading.Lock(), 0, gc.get_threshold()

    def begin(self) -> None:
        with self._lock:
            self._engines += 1
            if self._engines == 1:
                self._before = gc.get_threshold()
                gc.collect()
                gc.freeze()
                gc.set_threshold(YOUNG, OLDER, OLDEST)

    def end(self) -> None:
        with self._lock:
            self._engines -= 1
            if not self._engines:
                gc.set_threshold(*self._before)
                gc.unfreeze()


_told = _Told()
