"""Reads every record's bytes and does nothing: `raw.py BOOTSTRAP PREFIX GROUP EVENTS`; prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

from tests.benchmarks.peers.clients import consumer_of, places


def main(bootstrap: str, prefix: str, group: str, events: str) -> None:
    consumer = consumer_of(bootstrap, prefix + group)
    consumer.assign(places(prefix, 0))
    number, size, began = 0, 0, 0.0
    while number < int(events):
        messages = consumer.consume(8_000, 0.2)
        began = began or (time.perf_counter() if messages else 0.0)
        number += len(messages)
        size += sum(len(m.value() or b"") for m in messages)
    sys.stdout.write(json.dumps({"events": number, "bytes": size, "seconds": time.perf_counter() - began}) + "\n")


main(*sys.argv[1:])
