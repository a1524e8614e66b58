"""Memory over a long run: `streams_endurance.py EVENTS SEED` feeds events through the batch engine's states and
prints what the process holds after each fifth, one JSON line each.

Without a broker, so that millions of events fit into minutes: records in, stages, records out, as between two
commits. Each event is of its own; vehicles and embeddings come again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.benchmarks.streams_load import Load
from fleet.contender import event_ns, work
from streams.contracts.codec import encode
from streams.contracts.drive import TriggerEvent
from streams.contracts.ids import event_id
from streams.engines.batch.unit import Batch, Flow, Taken, Unit
from streams.engines.seldom_collected import seldom_collected
from streams.topics import BY_NAME
from streams.transport.base import Record
from streams.transport.memory import partition_of

TOPIC, PARTS = "fleet.events", 5
BATCH, DISTINCT = 16_000, 32_000
PROTOTYPES = 256
_BOOT = "boot-%04d"


def main(events: str, seed: str) -> None:
    """Print resident memory, the decisions so far, and the time per event of each part."""
    unit = Unit(Flow.of(work(PROTOTYPES)))
    number, taken, decided, began = int(events), 0, 0, time.process_time()
    with seldom_collected():
        for batch in _batches(int(seed), number):
            size = sum(len(t) for t in batch.values())
            done = unit.step(batch, max(time.time_ns(), unit.now_ns) + size * event_ns())
            decided += len(done.outgoing())
            unit.accept(done, batch)
            part = PARTS * taken // number
            taken += size
            if PARTS * taken // number > part:
                told = {
                    "events": taken,
                    "outputs": decided,
                    "mb": round(_resident_mb()),
                    "cpu_s": time.process_time() - began,
                }
                sys.stdout.write(json.dumps(told) + "\n")
                sys.stdout.flush()


def _batches(seed: int, number: int) -> Iterator[Batch]:
    """As a consumer hands them over: records by partition."""
    pool = list(Load(seed, min(DISTINCT, number)).all())
    sent = 0
    while sent < number:
        values: dict[int, list[bytes]] = {}
        for i in range(sent, min(sent + BATCH, number)):
            event = pool[i % len(pool)]
            partition = partition_of(event.vehicle.encode(), BY_NAME[TOPIC].partitions)
            values.setdefault(partition, []).append(again(event, i // len(pool)))
        sent = min(sent + BATCH, number)
        yield {(TOPIC, p): Taken(some, sent, sent + len(some), _never) for p, some in sorted(values.items())}


_encoded: dict[str, bytes] = {}


def again(event: TriggerEvent, drive: int) -> bytes:
    """The event as another drive would have sent it: its own id."""
    if event.event_id not in _encoded:
        _encoded[event.event_id] = encode(event)[1]
    boot = _BOOT % (drive + 1)
    name = event_id(event.vehicle, boot, event.sequence)
    value = _encoded[event.event_id].replace(event.event_id.encode(), name.encode())
    return value.replace(f'"{event.boot}"'.encode(), f'"{boot}"'.encode())


def _never(_row: int) -> Record:
    raise AssertionError("an event of the load was refused")


def _resident_mb() -> float:
    """Of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
