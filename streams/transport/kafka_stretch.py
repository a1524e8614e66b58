"""A stretch of a broker's topics, as it lies there: no group, no commit, nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.transport.base import ConnectionFailed, Record, Retry
from streams.transport.kafka import KafkaConfig, call, client_settings, connect, persist, record_of

_At = tuple[str, int]
_LAST = -1
"""What the client answers for a time after the newest record."""


def stretch(
    config: KafkaConfig, topics: Sequence[str], from_ns: int = 0, to_ns: int | None = None
) -> Iterator[Record]:
    """Records that the broker took in [from_ns, to_ns) (None: up to now), in the order in which it took them
    within a partition, and by time over all of them; they are held in memory. Reads once what is there and ends.
    Raises ConnectionFailed, also where a topic is missing, and Retry."""
    known = call(lambda: connect(config).list_topics(timeout=config.timeout_s)).topics
    missing = [t for t in topics if config.prefix + t not in known]
    if missing:
        names = ", ".join(config.prefix + topic for topic in missing)
        command = f"fleet topics apply{f' --prefix {config.prefix}' if config.prefix else ''}"
        raise ConnectionFailed(f"{config.bootstrap} has no topic {names}: `{command}` makes them")
    places = [TopicPartition(config.prefix + t, p) for t in topics for p in known[config.prefix + t].partitions]
    consumer = Consumer(_settings(config))
    try:
        yield from sorted(_read(consumer, config, places, from_ns, to_ns), key=lambda r: (r.time_ns, r.offset))
    finally:
        consumer.close()


def _read(
    consumer: Consumer, config: KafkaConfig, places: list[TopicPartition], from_ns: int, to_ns: int | None
) -> Iterator[Record]:
    starts, left = _bounds(consumer, config, places, from_ns, to_ns)
    todo = {at for at, start in starts.items() if start < left[at]}
    call(lambda: consumer.assign([TopicPartition(*at, starts[at]) for at in sorted(todo)]))
    heard = time.monotonic()
    while todo:
        for message in call(lambda: consumer.consume(1000, 0.05)):
            heard = time.monotonic()
            at, offset, ends_here = _place(message)
            if not ends_here and offset < left[at]:
                yield record_of(at[0].removeprefix(config.prefix), at[1], offset, message)
            # The end's offset also passes the markers of transactions, which are no messages.
            if offset + (not ends_here) >= left[at]:
                todo.discard(at)
        if time.monotonic() - heard > config.timeout_s:
            raise Retry(f"{config.bootstrap} sent nothing for {config.timeout_s:g} s; {len(todo)} partitions open")


def _place(message: Message) -> tuple[_At, int, bool]:
    """Topic and partition, offset, and whether it is the end of the partition. Raises Retry."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise Retry(f"{message.topic()}: {error.str()}")
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return (topic, partition), offset, error is not None


def _bounds(
    consumer: Consumer, config: KafkaConfig, places: list[TopicPartition], from_ns: int, to_ns: int | None
) -> tuple[dict[_At, int], dict[_At, int]]:
    """Offsets to begin at and to end before."""
    first = _at_time(consumer, config, places, from_ns)
    after = {} if to_ns is None else _at_time(consumer, config, places, to_ns)
    starts, ends = {}, {}
    for place in places:
        at = (place.topic, place.partition)
        low, high = _watermarks(consumer, config, place)
        starts[at] = high if first[at] == _LAST else max(first[at], low)
        ends[at] = min(high if after.get(at, _LAST) == _LAST else after[at], high)
    return starts, ends


def _watermarks(consumer: Consumer, config: KafkaConfig, place: TopicPartition) -> tuple[int, int]:
    found = persist(lambda: consumer.get_watermark_offsets(place, timeout=config.timeout_s), config.timeout_s)
    if found is None:
        raise Retry(f"{config.bootstrap} did not tell the offsets of {place.topic} in {config.timeout_s:g} s")
    return int(found[0]), int(found[1])


def _at_time(
    consumer: Consumer, config: KafkaConfig, places: list[TopicPartition], time_ns: int
) -> dict[_At, int]:
    """Offset of the first record at or after a time; -1 where there is none."""
    asked = [TopicPartition(p.topic, p.partition, time_ns // 1_000_000) for p in places]
    found = persist(lambda: consumer.offsets_for_times(asked, timeout=config.timeout_s), config.timeout_s)
    return {(p.topic, p.partition): p.offset for p in found}


def _settings(config: KafkaConfig) -> dict[str, str | int | float | bool]:
    return client_settings(
        config,
        {
            "group.id": f"{config.prefix}looking-only",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        },
    )
