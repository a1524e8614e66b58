"""The clients of the loops on confluent-kafka: the same settings for each, so that the loops are compared."""

from __future__ import annotations

from confluent_kafka import Consumer, Producer, TopicPartition

PARTITIONS = 8


def consumer_of(bootstrap: str, group: str) -> Consumer:
    """Reads what is committed; takes no part in a group's assignment by itself."""
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "isolation.level": "read_committed", "fetch.wait.max.ms": 20,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 50_000, "queued.max.messages.kbytes": 16_384,
    })  # fmt: skip


def producer_of(bootstrap: str, guarantee: dict[str, str | int | bool]) -> Producer:
    """`guarantee`: the settings of its idempotence or transactions."""
    return Producer({
        "bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 5, "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 200_000, "queue.buffering.max.kbytes": 256 * 1024,
        "partitioner": "consistent", **guarantee,
    })  # fmt: skip


def places(prefix: str, offset: int | None = None) -> list[TopicPartition]:
    """Every partition of the events, at the offset where one is given."""
    at = () if offset is None else (offset,)
    return [TopicPartition(f"{prefix}fleet.events", p, *at) for p in range(PARTITIONS)]
