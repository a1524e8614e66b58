"""The batch engine as a contender: `streams_batch.py BOOTSTRAP PREFIX GROUP PROTOTYPES`, until it is ended."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence

from fleet.contender import event_ns, paced, work
from streams.contracts.clock import SystemClock
from streams.engines.batch.engine import BatchConfig, BatchEngine
from streams.engines.now import clock_time
from streams.transport.base import Record
from streams.transport.kafka import KafkaConfig


def now(records: Sequence[Record], last_ns: int) -> int:
    """The machine's time, moved on by what was taken."""
    return max(time.time_ns(), last_ns) + len(records) * event_ns()


def main(bootstrap: str, prefix: str, group: str, prototypes: str) -> None:
    """Until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    clock = clock_time(SystemClock()) if paced() else now
    engine = BatchEngine(BatchConfig(KafkaConfig(bootstrap, prefix=prefix), group), work(int(prototypes)), clock)
    engine.run(stop.is_set)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
