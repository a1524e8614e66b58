"""What is left when nothing is decided: `copy.py BOOTSTRAP PREFIX GROUP PROTOTYPES`, until it is ended.

Read, decode, encode, write; at least once, no commit. No loop in this language that takes these records one by one
is faster, whatever it decides.
"""

from __future__ import annotations

import gc
import sys

import msgspec

from tests.benchmarks.peers.clients import consumer_of, places, producer_of
from tests.benchmarks.peers.work import Event, Novelty, Scenario

ODD, SAID = {"drive_side": "right"}, Novelty(0.1, 0.5, False, "nothing was decided")
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("ce_specversion", b"1.0"), ("ce_type", b"fleetwheel.scenario.v1"), ("ce_source", b"peer"), ("ce_id", b"same"),
    ("ce_time", b"2026-11-21T00:00:00.000000000Z"), ("content-type", b"application/json"),
]  # fmt: skip


def main(bootstrap: str, prefix: str, group: str, prototypes: str) -> None:
    consumer = consumer_of(bootstrap, prefix + group)
    producer = producer_of(bootstrap, {"enable.idempotence": True})
    consumer.assign(places(prefix, 0))
    decode, encode = msgspec.json.Decoder(Event).decode, msgspec.json.Encoder().encode
    topic = f"{prefix}fleet.scenarios"
    gc.disable()
    while True:
        for message in consumer.consume(1_000, 0.1):
            event = decode(message.value() or b"")
            value = encode(Scenario(event, "right/day/clear/urban", ODD, ["takeover"], SAID))
            producer.produce(topic, value, b"right/day/clear/urban", headers=HEADERS)
        producer.poll(0)


main(*sys.argv[1:])
