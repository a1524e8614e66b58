"""The batch engine as a contender: `streams_batch.py BOOTSTRAP PREFIX GROUP PROTOTYPES`, until it is ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from streams.contracts.clock import SECOND_NS, SystemClock
from streams.dedup import Dedup
from streams.engines.batch.engine import BatchConfig, BatchEngine
from streams.engines.now import clock_time
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.transport.base import Record
from streams.transport.kafka import KafkaConfig

WINDOW_NS = 20 * SECOND_NS
EVENT_NS = SECOND_NS // 1_000
"""Each event moves the clock on: a window of selection ends at least every 20,000 events, on any machine."""
PACED = "FLEET_BENCHMARK_PACED"
"""Set in its environment where events come at a fixed rate: then time passes by itself, and windows are as long as
a fleet's."""


def now(records: Sequence[Record], last_ns: int) -> int:
    """The machine's time, moved on by what was taken."""
    return max(time.time_ns(), last_ns) + len(records) * EVENT_NS


def main(bootstrap: str, prefix: str, group: str, prototypes: str) -> None:
    """Until SIGTERM."""
    stop, paced = threading.Event(), bool(os.environ.get(PACED))
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stages: list[AnyStage] = [
        Dedup(),
        Tagging(),
        NoveltyStage(NoveltyConfig(prototypes=int(prototypes))),
        Selection(SelectionConfig() if paced else SelectionConfig(window_ns=WINDOW_NS)),
    ]
    clock = clock_time(SystemClock()) if paced else now
    engine = BatchEngine(BatchConfig(KafkaConfig(bootstrap, prefix=prefix), group), stages, clock)
    engine.run(stop.is_set)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
