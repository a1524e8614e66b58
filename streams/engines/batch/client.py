"""The batch engine's side of Kafka: what it takes, what it commits, what it reads back. It decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.engines.batch.changelog import Past, Row
from streams.engines.batch.unit import Batch, Taken
from streams.engines.round import Outgoing
from streams.topics import BY_NAME
from streams.transport.base import Position, Positions, Retry, Spent
from streams.transport.kafka import (
    LARGEST_BATCH_BYTES,
    OLDEST,
    ONE_AT_A_TIME,
    KafkaConfig,
    KafkaTransport,
    Settings,
    absent,
    bytes_of,
    call,
    client_settings,
    connect,
    make_topics,
    named,
    persist,
    record_of,
)

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
_RESULT = TypeVar("_RESULT")
CHANGELOG_BYTES = 1_048_588
_WAITS_S = 5.0
"""What a client holds is taken in a fraction of this."""
_HINT = "from="
"""In the metadata of a committed offset: where in the changelog the last snapshot begins."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: outputs, changelog rows by partition, and offsets with their hints."""

    outgoing: list[tuple[int, list[Outgoing]]]
    """By the instant at which it was decided, ns: the time of the records, which the next stage goes by."""
    rows: list[tuple[int, Row]]
    offsets: dict[Position, tuple[int, int]]
    """Offset to go on from, and offset in the changelog to restore from."""


@dataclass(slots=True)
class Client:
    """Consumer, producer and changelog of one group. Not for use from several threads, but `commit` may run in
    another one than `take`."""

    config: KafkaConfig
    """`transactional_id` is the producer's."""
    group: str
    topics: tuple[str, ...]
    member: str = ""
    """Static member id; "" joins anew each time."""
    _admin: AdminClient = field(init=False)
    consumer: Consumer = field(init=False)
    _producer: Producer = field(init=False)
    _taken_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Connects, makes topics that are missing, takes the transactional id from an older process. Raises
        ConnectionFailed within seconds."""
        self._admin = connect(self.config)
        KafkaTransport(replace(self.config, transactional_id="")).close()
        self._make_changelog()
        self._producer = self._new_producer()
        self.consumer = self._new_consumer()

    @property
    def changelog(self) -> str:
        """Its topic, prefix included."""
        return f"{self.config.prefix}{self.group}.changelog"

    def places(self) -> list[Position]:
        """Every partition of the topics."""
        return [(t, p) for t in self.topics for p in range(BY_NAME[t].partitions)]

    def take(self, limit: int, timeout_s: float, gather_s: float) -> Batch:
        """What is there, at most `limit` records; waits for the first, and where fewer come until `gather_s` after
        the take before. Raises Retry, TransportError."""
        messages = call(lambda: self.consumer.consume(1, timeout_s))
        if messages:
            rest_s = max(self._taken_s + gather_s - time.monotonic(), 0)
            messages += call(lambda: self.consumer.consume(limit - 1, rest_s))
            self._taken_s = time.monotonic()
        return batch_of(messages, len(self.config.prefix))

    def commit(self, commit: Commit, group: object) -> None:
        """All or nothing, durable and visible when it returns. `group`: the consumer's metadata. What cannot be is
        taken back whole, by the next client where this one cannot: raises Retry, Spent, or Fenced where another
        process has taken this one's place."""
        timeout_s = self.config.timeout_s
        try:
            self._producer.begin_transaction()
            for now_ns, outgoing in commit.outgoing:
                self._produce_all(outgoing, now_ns // 1_000_000)
            for partition, (key, value) in commit.rows:
                self._produce(self.changelog, value, key, partition)
            offsets = [
                TopicPartition(self.config.prefix + t, p, offset, metadata=f"{_HINT}{hint}")
                for (t, p), (offset, hint) in sorted(commit.offsets.items())
            ]
            self._producer.send_offsets_to_transaction(offsets, group, timeout_s)
            self._producer.commit_transaction(timeout_s)
        except KafkaException as error:
            failure = named(error)
            if isinstance(failure, Retry) and not isinstance(failure, Spent):
                call(lambda: self._producer.abort_transaction(timeout_s))
            raise failure from error

    def absent(self) -> str:
        """That no broker answers, where none does within a second; else ""."""
        return absent(self._admin, self.config)

    def end_of_changelog(self, partition: int) -> int:
        """Offset of the next row."""
        place = TopicPartition(self.changelog, partition)
        ends = self._persist(lambda: self.consumer.get_watermark_offsets(place, timeout=self.config.timeout_s))
        return int(ends[1]) if ends else 0

    def committed(self, places: Sequence[Position]) -> dict[Position, tuple[int, int | None]]:
        """Offset and hint of each partition that has any; waits for what a dead process has left open."""
        wanted = [TopicPartition(self.config.prefix + t, p) for t, p in places]
        found = self._persist(lambda: self.consumer.committed(wanted, timeout=self.config.timeout_s))
        bare = len(self.config.prefix)
        return {(f.topic[bare:], f.partition): (f.offset, _hint(f.metadata)) for f in found if f.offset >= 0}

    def rows(self, partition: int, since: int | None) -> Iterator[Row]:
        """The changelog's rows, oldest first."""
        with _Reading(self.config, self.changelog, partition, since or OLDEST) as reading:
            for message in reading.until(None):
                yield bytes_of(message.key()), bytes_of(message.value())

    def replay(self, past: Past) -> Iterator[tuple[int, Batch]]:
        """The steps since the snapshot: instant and batch, in the cuts in which they were taken."""
        positions = dict(past.positions)
        readings: dict[Position, _Reading] = {}
        try:
            for step in past.steps:
                batch: Batch = {}
                for place, until in step.until.items():
                    if place not in readings:
                        start = positions.get(place, OLDEST)
                        readings[place] = _Reading(self.config, self.config.prefix + place[0], place[1], start)
                    messages = list(readings[place].until(until))
                    batch[place] = taken_of(place, messages, until)
                yield step.now_ns, batch
        finally:
            for reading in readings.values():
                reading.close()

    def close(self) -> None:
        """Leaves the group, unless it is a static member of it. May be called again."""
        try:
            if self.member:
                self._take_what_waits()
        finally:
            self.consumer.close()

    def _take_what_waits(self) -> None:
        """A static member that closes while an assignment waits to be polled for hangs, and with it all threads of
        the process (librdkafka's issue 4884). One that comes between this and the close is not seen.
        Records taken here were never committed: they come again."""
        ends = time.monotonic() + _WAITS_S
        with suppress(KafkaException, RuntimeError):  # RuntimeError: it was closed before
            self.consumer.pause(self.consumer.assignment())
            while self.consumer.consume(10_000, 0) and time.monotonic() < ends:
                pass

    def _produce_all(self, outgoing: Sequence[Outgoing], time_ms: int) -> None:
        produce, prefix = self._producer.produce, self.config.prefix
        for topic, key, headers, value in outgoing:
            try:
                produce(prefix + topic, value, key, timestamp=time_ms, headers=list(headers))
            except BufferError:
                self._produce(prefix + topic, value, key, -1, time_ms, list(headers))

    def _produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        partition: int,
        time_ms: int = 0,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        """Waits while the producer's queue is full: nothing more is taken meanwhile, and the client stops fetching
        when its own queue is full too."""
        while True:
            try:
                self._producer.produce(topic, value, key, partition, timestamp=time_ms, headers=headers or [])
                return
            except BufferError:
                self._producer.poll(0.05)

    def _persist(self, action: Callable[[], _RESULT]) -> _RESULT:
        return persist(action, self.config.timeout_s)

    def _make_changelog(self) -> None:
        partitions = max(BY_NAME[t].partitions for t in self.topics)
        settings = {
            "cleanup.policy": "compact",
            "max.message.bytes": str(CHANGELOG_BYTES),
            # Small segments, so that compaction gets at what is outdated.
            "segment.bytes": str(64 * 1024 * 1024),
            "min.cleanable.dirty.ratio": "0.2",
        }
        topic = NewTopic(
            self.changelog,
            num_partitions=partitions,
            replication_factor=self.config.replication,
            config=settings,
        )
        make_topics(self._admin, self.config, [topic])

    def _new_producer(self) -> Producer:
        settings: Settings = {
            "transactional.id": self.config.prefix + self.config.transactional_id,
            # What a killed process left open blocks readers for no longer than this.
            "transaction.timeout.ms": 15_000,
            "compression.type": "lz4",
            "partitioner": "consistent",
            "linger.ms": 5,
            # How long the client waits where the broker still marks the transaction before: by default 100 ms, of
            # which each transaction would last.
            "retry.backoff.ms": 2,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 256 * 1024,
            "message.max.bytes": LARGEST_BATCH_BYTES,
            **ONE_AT_A_TIME,
        }
        producer = Producer(client_settings(self.config, settings), logger=_log)
        self._persist(lambda: producer.init_transactions(self.config.timeout_s))
        return producer

    def _new_consumer(self) -> Consumer:
        settings: Settings = {
            "group.id": self.config.prefix + self.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 20,
            # A client whose queue was full looks for a second whether there is room again, by default.
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 50_000,
            # Of each partition: with this the client's memory is bounded.
            "queued.max.messages.kbytes": 16_384,
        }
        if self.member:
            settings["group.instance.id"] = self.member
        return Consumer(client_settings(self.config, settings), logger=_log)


class _Reading:
    """One partition from an offset on, or from the oldest there is where that is gone; without a group. Made for
    each partition that comes: by the client's defaults each would take a second, most of it waiting for the end to
    be told."""

    def __init__(self, config: KafkaConfig, topic: str, partition: int, start: int) -> None:
        settings: Settings = {
            "group.id": f"{config.prefix}restore",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 8_192,
            "fetch.wait.max.ms": 10,
        }
        self._consumer = Consumer(client_settings(config, settings), logger=_log)
        self._what = f"{topic}/{partition}"
        self._timeout_s = config.timeout_s
        self._left: list[Message] = []
        self._next = 0
        call(lambda: self._consumer.assign([TopicPartition(topic, partition, start)]))

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def until(self, offset: int | None) -> Iterator[Message]:
        """Records below the offset, or all that are committed now. Raises Retry where the broker says nothing."""
        ends = time.monotonic() + self._timeout_s
        while True:
            while self._left and (offset is None or _offset(self._left[0]) < offset):
                yield self._left.pop(0)
            if self._left or (offset is not None and self._next >= offset):
                return
            messages = call(lambda: self._consumer.consume(1_000, 0.02))
            if messages:
                ends = time.monotonic() + self._timeout_s
            elif time.monotonic() > ends:
                raise Retry(f"{self._what} could not be read up to {offset}")
            if self._sort_in(messages) and offset is None:
                yield from self._left
                self._left = []
                return

    def _sort_in(self, messages: Sequence[Message]) -> bool:
        """Keep the records; whether the end was reached."""
        ended = False
        for message in messages:
            error = message.error()
            if error is None:
                self._left.append(message)
                self._next = _offset(message) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended, self._next = True, max(self._next, _offset(message))
            else:
                raise named(KafkaException(error))
        return ended


def batch_of(messages: Sequence[Message], prefix: int) -> Batch:
    """Messages by partition. Raises what an error among them asks for."""
    places: dict[tuple[str | None, int | None], list[Message]] = {}
    for message in messages:
        error = message.error()
        if error is not None:
            raise named(KafkaException(error))
        places.setdefault((message.topic(), message.partition()), []).append(message)
    batch: Batch = {}
    for (topic, partition), some in places.items():
        assert topic is not None and partition is not None
        place = topic[prefix:], partition
        batch[place] = taken_of(place, some, _offset(some[-1]) + 1)
    return batch


def taken_of(place: Position, messages: Sequence[Message], until: int) -> Taken:
    """Their values; whole records on demand."""
    values = [bytes_of(m.value()) for m in messages]
    first = _offset(messages[0]) if messages else until
    return Taken(values, first, until, lambda i: record_of(*place, _offset(messages[i]), messages[i]))


def positions_of(committed: Mapping[Position, tuple[int, int | None]]) -> Positions:
    """Offsets alone."""
    return {place: offset for place, (offset, _) in committed.items()}


def hint_of(committed: Mapping[Position, tuple[int, int | None]]) -> int | None:
    """Where a restore may begin to read: what the newest commit says. None where somebody else has committed."""
    hints = [hint for _, hint in committed.values()]
    return None if None in hints else max((h for h in hints if h is not None), default=None)


def _hint(metadata: str | None) -> int | None:
    text = (metadata or "").removeprefix(_HINT)
    return int(text) if text.isdigit() else None


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset
