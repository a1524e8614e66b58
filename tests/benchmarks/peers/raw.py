"""Reads every record's bytes and does nothing: `raw.py BOOTSTRAP PREFIX GROUP EVENTS`; prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

from tests.benchmarks.peers.clients import consumer_of, places


def main(bootstrap: str, prefix: str, group: str, events: str) -> None:
    consumer = consumer_of(bootstrap, prefix + group)
    consumer.assign(places(prefix, 0))
    while not (first := len(consumer.consume(8_000, 0.2))):
        pass
    # Connected: from here on.
    number, size, began = first, 0, time.perf_counter()
    while number < int(events):
        messages = consumer.consume(8_000, 0.2)
        number += len(messages)
        size += sum(len(m.value() or b"") for m in messages)
    told = {"events": number - first, "bytes": size, "seconds": time.perf_counter() - began}
    sys.stdout.write(json.dumps(told) + "\n")


main(*sys.argv[1:])
