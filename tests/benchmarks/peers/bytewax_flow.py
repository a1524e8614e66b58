"""bytewax, its Kafka connector's batches, at least once: `bytewax_flow.py BOOTSTRAP PREFIX GROUP PROTOTYPES
WORK`, until it is ended. It has no transactions: its output is visible at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

from tests.benchmarks.peers.stages import work_of


def main(bootstrap: str, prefix: str, group: str, prototypes: str, what: str) -> None:
    work = work_of(what, prototypes)
    consumer = {"group.id": prefix + group, "fetch.wait.max.ms": "20", "fetch.queue.backoff.ms": "10"}
    consumer["queued.max.messages.kbytes"] = "16384"
    producer = {
        "compression.type": "lz4", "partitioner": "consistent", "linger.ms": "5", "enable.idempotence": "true",
        "queue.buffering.max.messages": "200000",
    }  # fmt: skip

    def decide(messages: list[Any]) -> Iterator[KafkaSinkMessage[bytes, bytes]]:
        for topic, key, headers, value in work.batch([m.value for m in messages]):
            yield KafkaSinkMessage(key, value, prefix + topic, headers)

    flow = Dataflow("events")
    source = KafkaSource([bootstrap], [f"{prefix}fleet.events"], add_config=consumer, batch_size=8_000)
    events = op.input("in", flow, source)
    said = op.flat_map_batch("decide", events, decide)
    op.output("out", said, KafkaSink([bootstrap], None, add_config=producer))
    cluster_main(flow, [], 0)


main(*sys.argv[1:])
