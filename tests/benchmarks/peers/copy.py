"""What is left when nothing is decided: `copy.py BOOTSTRAP PREFIX GROUP PROTOTYPES`, until it is ended.

Read, decode, encode, write; at least once, no commit. No loop in this language that takes these records one by one
is faster, whatever it decides.
"""

from __future__ import annotations

import gc
import sys

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.benchmarks.peers.work import Event, Novelty, Scenario

PARTITIONS, ODD, SAID = 8, {"drive_side": "right"}, Novelty(0.1, 0.5, False, "nothing was decided")
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("ce_specversion", b"1.0"), ("ce_type", b"fleetwheel.scenario.v1"), ("ce_source", b"peer"), ("ce_id", b"same"),
    ("ce_time", b"2026-11-21T00:00:00.000000000Z"), ("content-type", b"application/json"),
]  # fmt: skip


def main(bootstrap: str, prefix: str, group: str, prototypes: str) -> None:
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": prefix + group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "isolation.level": "read_committed", "fetch.wait.max.ms": 20,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 50_000, "queued.max.messages.kbytes": 16_384,
    })  # fmt: skip
    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "lz4",
        "linger.ms": 5, "batch.num.messages": 10_000, "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 256 * 1024, "partitioner": "consistent",
    })  # fmt: skip
    consumer.assign([TopicPartition(f"{prefix}fleet.events", p, 0) for p in range(PARTITIONS)])
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
