"""Time as a value that is passed in."""

from __future__ import annotations

import time
from typing import Protocol

SECOND_NS = 1_000_000_000


class Clock(Protocol):
    """Now, in nanoseconds UTC. Never blocks, never goes back."""

    def now_ns(self) -> int: ...


class SystemClock:
    """The machine's clock, held monotonic against steps backwards."""

    def __init__(self) -> None:
        self._last_ns = 0

    def now_ns(self) -> int:
        self._last_ns = max(self._last_ns, time.time_ns())
        return self._last_ns


class VirtualClock:
    """A clock that moves only when told."""

    def __init__(self, start_ns: int) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, by_ns: int) -> None:
        """Move forward. Raises ValueError for a step back."""
        if by_ns < 0:
            raise ValueError(f"a clock does not go back: {by_ns} ns")
        self._now_ns += by_ns
