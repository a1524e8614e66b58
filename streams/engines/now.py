"""What an engine calls now. One choice for a run: the machine's clock, or the time that the records carry.

Live, time passes by itself. Over a recording (a replay, a backtest, a comparison of engines) it passes only as the
records say, so that every engine steps its stages at the same instants (docs/adr/0009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.contracts.clock import Clock
from streams.transport.base import Record

Now = Callable[[Sequence[Record], int], int]
"""(records of the batch, last instant) -> this instant, ns; never before the last one."""


def record_time(records: Sequence[Record], last_ns: int) -> int:
    """The newest time of a record so far. An empty batch lets no time pass."""
    return max([last_ns, *(r.time_ns for r in records)])


def clock_time(clock: Clock) -> Now:
    """The clock's time; a state that comes from a machine whose clock is ahead waits for this one."""
    return lambda _, last_ns: max(last_ns, clock.now_ns())
