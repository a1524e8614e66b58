"""quixstreams, exactly-once: `quix.py BOOTSTRAP PREFIX GROUP PROTOTYPES WORK`, until it is ended."""

from __future__ import annotations

import sys
from tempfile import TemporaryDirectory
from typing import Any

from quixstreams import Application
from quixstreams.models.serializers import Serializer

from tests.benchmarks.peers.stages import Batched, work_of
from tests.benchmarks.peers.work import Record


class Value(Serializer):  # type: ignore[misc]  # of another environment
    """The value of a record."""

    def __call__(self, value: Record, ctx: Any) -> bytes:
        return value[3]


def main(bootstrap: str, prefix: str, group: str, prototypes: str, what: str) -> None:
    with TemporaryDirectory() as folder:
        run(bootstrap, prefix, group, work_of(what, prototypes), folder)


def run(bootstrap: str, prefix: str, group: str, work: Batched, folder: str) -> None:
    app = Application(
        broker_address=bootstrap,
        consumer_group=prefix + group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_every=8_000,
        commit_interval=1.0,
        state_dir=folder,
        auto_create_topics=False,
        consumer_extra_config={"fetch.wait.max.ms": 20, "fetch.queue.backoff.ms": 10},
        producer_extra_config={"compression.type": "lz4", "partitioner": "consistent"},
    )
    events = app.topic(f"{prefix}fleet.events", value_deserializer="bytes", key_deserializer="bytes")
    topics = {
        name: app.topic(prefix + name, value_serializer=Value(), key_serializer="bytes")
        for name in ("fleet.scenarios", "fleet.clip-requests")
    }

    def decide(value: bytes) -> list[Record]:
        return work.batch([value])

    said = app.dataframe(events).apply(decide, expand=True)
    for name, topic in topics.items():
        write(said, name, topic)
    app.run()


def write(said: Any, name: str, topic: Any) -> None:
    """The records of one topic."""
    mine = said.filter(lambda record: record[0] == name)
    mine = mine.set_headers(lambda record, key, timestamp, headers: record[2])
    mine.to_topic(topic, key=lambda record: record[1])


main(*sys.argv[1:])
