"""Python's garbage collector, told what an engine's process is like."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG, OLDER, OLDEST = 100_000, 20, 50
"""Allocations until the young are looked at, and so on: about twice a batch."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """An engine makes no cycles: batches of messages are freed by their counts. At Python's own thresholds the
    collector looks through each batch a hundred times, and at times through all states: a tenth of all work."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDEST)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
