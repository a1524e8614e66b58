"""Kafka: a transport over a real broker. Idempotent or transactional producer; consumers read only what is
committed. Topics are made from the table."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
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
from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from streams.contracts.codec import Headers
from streams.topics import TOPICS, Topic
from streams.transport.base import (
    ConnectionFailed,
    Fenced,
    Position,
    Positions,
    Record,
    Retry,
    Spent,
    TransportError,
    check_record,
    topic_of,
)

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
_RESULT = TypeVar("_RESULT")
Settings = dict[str, str | int | float | bool]
_BATCH_OVERHEAD = 10_000
"""Bytes of framing that a broker's limit must allow beside the largest record."""
OLDEST = 0
"""Where the log begins, or what a client takes for it (auto.offset.reset) where that is gone. librdkafka's own
word for it makes it ask the broker, half a second later."""
LARGEST_BATCH_BYTES = max(t.max_bytes for t in TOPICS) + _BATCH_OVERHEAD
"""What a producer must be allowed to send at once."""
ONE_AT_A_TIME: Settings = {"max.in.flight.requests.per.connection": 1}
"""For every producer. With several requests under way the first may find a partition whose leader is not ready and
the second succeed: a broker that knows nothing of a producer takes any number as its first, and the client counts
what was refused as acknowledged (confluent-kafka-go's issue 921)."""


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where the broker is, and how to speak with it."""

    bootstrap: str
    """HOST:PORT, or several with commas."""
    transactional_id: str = ""
    """Given: what is published and what is committed become visible together, and an older process of the same
    id is fenced off. Empty: an idempotent producer, at least once."""
    prefix: str = ""
    """Before every topic and group: several fleets on one broker."""
    replication: int = 1
    timeout_s: float = 30.0
    connect_s: float = 5.0
    options: Mapping[str, str] = field(default_factory=dict)
    """Further settings of librdkafka, such as security.protocol."""


@dataclass(slots=True)
class _Reader:
    consumer: Consumer
    topics: tuple[str, ...]
    next: Positions


class KafkaTransport:
    """See Transport. Not for use from several threads."""

    def __init__(self, config: KafkaConfig) -> None:
        """Connects and makes the topics that are missing. Raises ConnectionFailed within seconds."""
        self.config = config
        self._admin = connect(config)
        make_topics(self._admin, config, [new_topic(config, t) for t in TOPICS])
        self._producer = self._new_producer()
        self._in_transaction = False
        self._failed: list[str] = []
        self._readers: dict[str, _Reader] = {}

    def publish(self, topic: str, key: bytes, headers: Headers, value: bytes, time_ns: int = 0) -> None:
        """Buffered; see Transport. `time_ns`: when it is to count as taken; 0 is now."""
        check_record(topic_of(topic), key, headers, value)
        self._begin()
        while True:
            try:
                self._producer.produce(
                    self.config.prefix + topic,
                    value,
                    key,
                    headers=list(headers),
                    timestamp=time_ns // 1_000_000,
                    on_delivery=self._delivered,
                )
                call(lambda: self._producer.poll(0))
                return
            except BufferError:
                call(lambda: self._producer.poll(0.1))
            except KafkaException as error:
                raise named(error) from error

    def flush(self) -> None:
        """In a transaction: commit it."""
        if self._in_transaction:
            self._commit_transaction(None, {})
            return
        left = call(lambda: self._producer.flush(self.config.timeout_s))
        failed, self._failed = self._failed, []
        if left or failed:
            raise Retry(f"{left + len(failed)} records were not taken by {self.config.bootstrap}: {failed[:3]}")

    def poll(self, group: str, topics: Sequence[str], limit: int, timeout_s: float = 0.0) -> list[Record]:
        """See Transport."""
        reader = self._reader(group, topics)
        records = self._take(reader, limit, 0.0)
        ends = time.monotonic() + timeout_s
        while not records and (left := ends - time.monotonic()) > 0:
            records = self._take(reader, 1, min(left, 0.1))
            if records:
                records += self._take(reader, limit - 1, 0.0)
        return records

    def commit(self, group: str, positions: Mapping[Position, int]) -> None:
        """See Transport."""
        if self.config.transactional_id:
            self._begin()
            self._commit_transaction(group, positions)
            return
        self.flush()
        reader = self._readers.get(group)
        consumer = reader.consumer if reader else self._new_consumer(group)
        try:
            self._persist(lambda: consumer.commit(offsets=self._offsets(positions), asynchronous=False))
        finally:
            if reader is None:
                consumer.close()

    def committed(self, group: str, topics: Sequence[str]) -> Positions:
        """See Transport."""
        reader = self._readers.get(group)
        consumer = reader.consumer if reader else self._new_consumer(group)
        try:
            return self._committed(consumer, topics)
        finally:
            if reader is None:
                consumer.close()

    def seek(self, group: str, topics: Sequence[str], positions: Mapping[Position, int]) -> None:
        """See Transport."""
        self._drop_reader(group)
        self._readers[group] = self._open(group, topics, dict(positions))

    def lag(self, group: str, topics: Sequence[str]) -> int:
        """Counts a transaction's marker as a record until poll has passed it."""
        reader = self._reader(group, topics)
        ends = self.end_offsets(topics)
        return sum(max(0, end - reader.next.get(place, 0)) for place, end in ends.items())

    def end_offsets(self, topics: Sequence[str]) -> Positions:
        """See Transport."""
        newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        places = [TopicPartition(self.config.prefix + t, p) for t, p in self._partitions(topics)]

        def ask() -> Positions:
            asked = self._admin.list_offsets(dict.fromkeys(places, newest), request_timeout=self.config.timeout_s)
            return {(self._bare(p.topic), p.partition): max(self._result(f), 0) for p, f in asked.items()}

        return self._persist(ask)

    def absent(self) -> str:
        """See `absent`."""
        return absent(self._admin, self.config)

    def restart(self, group: str) -> None:
        """As if the group's process had died: polling goes on from what was committed."""
        self._drop_reader(group)

    def close(self) -> None:
        """See Transport."""
        try:
            self.flush()
        finally:
            for group in list(self._readers):
                self._drop_reader(group)

    # --- topics

    def _partitions(self, topics: Sequence[str]) -> list[Position]:
        return [(t, p) for t in topics for p in range(topic_of(t).partitions)]

    def _result(self, future: Future[ListOffsetsResultInfo]) -> int:
        return int(call(lambda: future.result(timeout=self.config.timeout_s)).offset)

    def _bare(self, topic: str) -> str:
        return topic.removeprefix(self.config.prefix)

    # --- producing

    def _new_producer(self) -> Producer:
        settings: Settings = {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "zstd",
            "partitioner": "consistent",
            "linger.ms": 5,
            "message.max.bytes": LARGEST_BATCH_BYTES,
            **ONE_AT_A_TIME,
            "delivery.timeout.ms": int(self.config.timeout_s * 1000),
        }
        if self.config.transactional_id:
            settings["transactional.id"] = self.config.prefix + self.config.transactional_id
            settings["transaction.timeout.ms"] = int(self.config.timeout_s * 1000)
        producer = Producer(self._settings(settings), logger=_log)
        if self.config.transactional_id:
            self._persist(lambda: producer.init_transactions(self.config.timeout_s))
        return producer

    def _begin(self) -> None:
        if self.config.transactional_id and not self._in_transaction:
            call(self._producer.begin_transaction)
            self._in_transaction = True

    def _commit_transaction(self, group: str | None, positions: Mapping[Position, int]) -> None:
        """All or nothing: what fails is taken back whole."""
        self._in_transaction = False
        try:
            if group is not None and positions:
                metadata = self._reader(
                    group, sorted({t for t, _ in positions})
                ).consumer.consumer_group_metadata()
                offsets = self._offsets(positions)
                call(lambda: self._producer.send_offsets_to_transaction(offsets, metadata, self.config.timeout_s))
            call(lambda: self._producer.commit_transaction(self.config.timeout_s))
        except (Fenced, Spent):
            raise
        except TransportError:
            call(lambda: self._producer.abort_transaction(self.config.timeout_s))
            raise

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")

    # --- consuming

    def _reader(self, group: str, topics: Sequence[str]) -> _Reader:
        if group not in self._readers:
            self._readers[group] = self._open(group, topics, None)
        return self._readers[group]

    def _open(self, group: str, topics: Sequence[str], positions: Positions | None) -> _Reader:
        """A consumer at these offsets; None: at the committed ones."""
        consumer = self._new_consumer(group)
        if positions is None:
            positions = self._committed(consumer, topics)
        start = [
            TopicPartition(self.config.prefix + t, p, positions.get((t, p), OLDEST))
            for t, p in self._partitions(topics)
        ]
        call(lambda: consumer.assign(start))
        return _Reader(consumer, tuple(topics), positions)

    def _committed(self, consumer: Consumer, topics: Sequence[str]) -> Positions:
        wanted = [TopicPartition(self.config.prefix + t, p) for t, p in self._partitions(topics)]
        found = self._persist(lambda: consumer.committed(wanted, timeout=self.config.timeout_s))
        return {(self._bare(f.topic), f.partition): f.offset for f in found if f.offset >= 0}

    def _persist(self, action: Callable[[], _RESULT]) -> _RESULT:
        return persist(action, self.config.timeout_s)

    def _new_consumer(self, group: str) -> Consumer:
        settings: Settings = {
            "group.id": self.config.prefix + group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
        }
        return Consumer(self._settings(settings), logger=_log)

    def _drop_reader(self, group: str) -> None:
        reader = self._readers.pop(group, None)
        if reader is not None:
            reader.consumer.close()

    def _take(self, reader: _Reader, limit: int, timeout_s: float) -> list[Record]:
        records: list[Record] = []
        for message in call(lambda: reader.consumer.consume(limit, timeout_s)) if limit > 0 else ():
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise Retry(f"{message.topic()}: {error.str()}")
            topic, partition, offset = self._place(message)
            if error is None:
                records.append(record_of(topic, partition, offset, message))
            # The end's offset also passes the markers of transactions, which are no messages.
            reader.next[topic, partition] = offset + (error is None)
        return records

    def _place(self, message: Message) -> tuple[str, int, int]:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None and partition is not None and offset is not None
        return self._bare(topic), partition, offset

    def _offsets(self, positions: Mapping[Position, int]) -> list[TopicPartition]:
        return [TopicPartition(self.config.prefix + t, p, offset) for (t, p), offset in sorted(positions.items())]

    def _settings(self, settings: Settings) -> Settings:
        return client_settings(self.config, settings)


def connect(config: KafkaConfig) -> AdminClient:
    """An administrator's client. Raises ConnectionFailed within seconds, naming the address."""
    if not re.fullmatch(r"[^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*", config.bootstrap):
        raise ConnectionFailed(f"{config.bootstrap!r} is not HOST:PORT")
    try:
        admin = AdminClient(client_settings(config, {}), logger=_log)
    except KafkaException as error:
        raise ConnectionFailed(f"a setting for Kafka's client is wrong: {error.args[0].str()}") from error
    try:
        admin.list_topics(timeout=config.connect_s)
    except KafkaException as error:
        raise ConnectionFailed(
            f"no Kafka broker answers at {config.bootstrap} within {config.connect_s:g} s: "
            f"start one (make kafka) or name another ({error.args[0].str()})"
        ) from error
    return admin


def absent(admin: AdminClient, config: KafkaConfig) -> str:
    """That no broker answers, where none does within a second; else "". A client that only reads says nothing when
    its broker goes away."""
    try:
        admin.list_topics(config.prefix + TOPICS[0].name, timeout=1.0)
    except KafkaException as error:
        return f"no Kafka broker answers at {config.bootstrap} any more ({error.args[0].str()})"
    return ""


def topic_settings(topic: Topic) -> dict[str, str]:
    """The broker's settings of a topic of the table."""
    return {
        "retention.ms": str(topic.retention_ms),
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "max.message.bytes": str(topic.max_bytes + _BATCH_OVERHEAD),
    }


def new_topic(config: KafkaConfig, topic: Topic) -> NewTopic:
    """A topic of the table, to be made."""
    return NewTopic(
        config.prefix + topic.name,
        num_partitions=topic.partitions,
        replication_factor=config.replication,
        config=topic_settings(topic),
    )


def make_topics(admin: AdminClient, config: KafkaConfig, wanted: Sequence[NewTopic]) -> None:
    """Make those that are missing, and wait until all have leaders that answer. Raises TransportError; Retry where
    the leaders do not come."""
    for name, made in admin.create_topics(list(wanted), operation_timeout=config.timeout_s).items():
        try:
            made.result(timeout=config.timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                _log.warning("topic %s could not be made", name)
                raise named(error) from error
    ends = time.monotonic() + config.timeout_s
    while missing := _missing(admin, config, [t.topic for t in wanted]):
        if time.monotonic() > ends:
            raise Retry(f"{config.bootstrap} has no leader for every topic yet: {missing}")
        time.sleep(0.05)


def _missing(admin: AdminClient, config: KafkaConfig, names: Sequence[str]) -> str:
    """What keeps topics from being used: a leader of each partition must answer, and take itself for it; for a
    moment the others know first. Empty: nothing. Raises what waiting does not mend."""
    try:
        known = call(lambda: admin.list_topics(timeout=config.timeout_s)).topics
        for name in names:
            partitions = known[name].partitions if name in known else {}
            if not partitions or any(p.leader < 0 for p in partitions.values()):
                return f"{name} is led by nobody"
        newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        places = {TopicPartition(name, p): newest for name in names for p in known[name].partitions}
        for future in call(lambda: admin.list_offsets(places, request_timeout=config.timeout_s)).values():
            # The request gives up before its futures do.
            call(lambda future=future: future.result(2 * config.timeout_s))  # type: ignore[misc]
    except (Retry, TimeoutError) as error:
        return str(error) or "the leaders say nothing"
    return ""


def client_settings(config: KafkaConfig, settings: Settings) -> Settings:
    """For a client of librdkafka: ours, then the user's."""
    return {"bootstrap.servers": config.bootstrap, **settings, **config.options}


def record_of(topic: str, partition: int, offset: int, message: Message) -> Record:
    """The client's message as a record."""
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        key=bytes_of(message.key()),
        headers=_headers(message),
        value=bytes_of(message.value()),
        time_ns=max(message.timestamp()[1], 0) * 1_000_000,
    )


def _headers(message: Message) -> Headers:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((name, bytes_of(value)) for name, value in pairs)


def bytes_of(value: str | bytes | None) -> bytes:
    """A key or value as it lies in the log."""
    return value if isinstance(value, bytes) else b"" if value is None else value.encode()


def call(action: Callable[[], _RESULT]) -> _RESULT:
    """The client's errors under our names.

    What a signal's handler raises while the client reports a delivery is lost in it: it then knows only that
    something was raised (SystemError). As our reports raise nothing themselves, that was an interrupt.
    """
    try:
        return action()
    except KafkaException as error:
        raise named(error) from error
    except SystemError as error:
        raise KeyboardInterrupt from error


def persist(action: Callable[[], _RESULT], timeout_s: float) -> _RESULT:
    """`call`, repeated while the broker says that it may work soon: a leader or a coordinator moves, or a dead
    process's transaction is still open."""
    ends = time.monotonic() + timeout_s
    while True:
        try:
            return call(action)
        except Spent:
            raise
        except Retry:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


_REFUSED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._AUTHENTICATION,
    KafkaError._UNSUPPORTED_FEATURE,
)
"""What waiting does not mend."""
_FENCED = (
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID,
)


def named(error: KafkaException) -> TransportError:
    """The client's error by the reaction that it asks for."""
    cause = error.args[0]
    if cause.code() in _FENCED:
        return Fenced(f"another process has taken this one's place: {cause.str()}")
    if cause.code() in _REFUSED:
        return TransportError(f"the broker refuses: {cause.str()}")
    if cause.fatal():
        return Spent(f"this client of Kafka cannot go on: {cause.str()}")
    return Retry(cause.str())
