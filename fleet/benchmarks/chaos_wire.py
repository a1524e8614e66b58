"""A trial's topics on the broker: what is fed, what has been decided so far, what a group has taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from fleet.benchmarks.chaos_verdict import Word, word
from streams.engines.undisturbed import Phase
from streams.topics import BY_NAME
from streams.transport.kafka import LARGEST_BATCH_BYTES, ONE_AT_A_TIME, KafkaConfig, KafkaTransport
from streams.transport.memory import partition_of

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
Group = tuple[str, tuple[str, ...]]
"""Its name, and the topics that it reads."""
_RESULT = TypeVar("_RESULT")
_AWAY_S = 120.0
"""A broker that is started again may take so long."""


class Wire:
    """Feeds and listens under a prefix; bears a broker that goes away and comes back."""

    def __init__(self, bootstrap: str, prefix: str, listen: Sequence[str]) -> None:
        """Makes the topics. `listen`: those on which decisions are told."""
        self._bootstrap, self.prefix = bootstrap, prefix
        KafkaTransport(KafkaConfig(bootstrap, prefix=prefix)).close()
        self.words: list[Word] = []
        """Committed decisions, in the order in which they were heard."""
        settings = {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.max.bytes": LARGEST_BATCH_BYTES,
            **ONE_AT_A_TIME,
        }
        self._producer = Producer(settings, logger=_log)
        self._refused: list[KafkaError] = []
        self._listener = self._consumer("listener")
        self._ended: set[tuple[str, int]] = set()
        self._next = {(prefix + t, p): 0 for t in listen for p in range(BY_NAME[t].partitions)}
        self._assign()

    def feed(self, burst: Phase) -> None:
        """Safe on the broker when this returns."""
        for r in burst.records:
            partition = partition_of(r.key, BY_NAME[r.topic].partitions)
            self._producer.produce(
                self.prefix + r.topic,
                r.value,
                r.key,
                partition=partition,
                headers=list(r.headers),
                timestamp=burst.time_ns // 1_000_000,
                on_delivery=self._delivered,
            )
        if self._producer.flush(_AWAY_S):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if self._refused:
            raise KafkaException(self._refused[0])

    def listen(self, timeout_s: float = 0.01) -> int:
        """Hear what was decided meanwhile; how much that was."""
        heard = 0
        for message in self._listener.consume(5_000, timeout_s):
            place, error = _place(message), message.error()
            if error is None:
                self._ended.discard(place)
                self._next[place] = (message.offset() or 0) + 1
                self.words.append(word(place[0].removeprefix(self.prefix), message.value() or b""))
                heard += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(place)
        return heard

    def hear_out(self) -> None:
        """Listen to the end of what is committed now."""
        self._assign()
        ends = time.monotonic() + _AWAY_S
        while len(self._ended) < len(self._next) and time.monotonic() < ends:
            self.listen(0.05)

    def taken(self, groups: Iterable[Group]) -> bool:
        """Whether the groups have committed all that lies in their topics but marks of transactions."""
        return all(self._nothing_left(group) for group in groups)

    def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """Offset of the next record to come."""
        found: dict[tuple[str, int], int] = {}
        for topic, partition in [(t, p) for t in topics for p in range(BY_NAME[t].partitions)]:
            place = TopicPartition(self.prefix + topic, partition)
            marks = _patiently(partial(self._listener.get_watermark_offsets, place, timeout=10))
            found[topic, partition] = int(marks[1]) if marks else 0
        return found

    def close(self) -> None:
        """Let go."""
        self._listener.close()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refused.append(error)

    def _assign(self) -> None:
        """From where we are, so that the ends of all partitions are told anew."""
        self._ended = set()
        self._listener.assign([TopicPartition(*place, offset) for place, offset in self._next.items()])

    def _nothing_left(self, group: Group) -> bool:
        name, topics = group
        wanted = [TopicPartition(self.prefix + t, p) for t in topics for p in range(BY_NAME[t].partitions)]
        consumer = self._consumer(self.prefix + name)
        try:
            committed = _patiently(lambda: consumer.committed(wanted, timeout=10))
            consumer.assign([TopicPartition(p.topic, p.partition, max(p.offset, 0)) for p in committed])
            open_places, ends = {(p.topic, p.partition) for p in wanted}, time.monotonic() + _AWAY_S
            while open_places and time.monotonic() < ends:
                for message in consumer.consume(100, 0.5):
                    error = message.error()
                    if error is None:
                        return False
                    if error.code() == KafkaError._PARTITION_EOF:
                        open_places.discard(_place(message))
            return not open_places
        finally:
            consumer.close()

    def _consumer(self, group: str) -> Consumer:
        return Consumer({
            "bootstrap.servers": self._bootstrap, "group.id": group, "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 5,
        }, logger=_log)  # fmt: skip


def _place(message: Message) -> tuple[str, int]:
    return str(message.topic()), int(message.partition() or 0)


def _patiently(action: Callable[[], _RESULT]) -> _RESULT:
    """Again and again while the broker is away."""
    ends = time.monotonic() + _AWAY_S
    while True:
        try:
            return action()
        except KafkaException:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)
