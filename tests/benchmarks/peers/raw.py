"""Reads every record's bytes and does nothing: `raw.py BOOTSTRAP PREFIX GROUP EVENTS`; prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, TopicPartition


def main(bootstrap: str, prefix: str, group: str, events: str) -> None:
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": prefix + group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "isolation.level": "read_committed", "fetch.wait.max.ms": 20,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 50_000, "queued.max.messages.kbytes": 16_384,
    })  # fmt: skip
    consumer.assign([TopicPartition(f"{prefix}fleet.events", p, 0) for p in range(8)])
    number, size, began = 0, 0, 0.0
    while number < int(events):
        messages = consumer.consume(8_000, 0.2)
        began = began or (time.perf_counter() if messages else 0.0)
        number += len(messages)
        size += sum(len(m.value() or b"") for m in messages)
    sys.stdout.write(json.dumps({"events": number, "bytes": size, "seconds": time.perf_counter() - began}) + "\n")


main(*sys.argv[1:])
