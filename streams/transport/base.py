"""What a transport is: the contract that memory and Kafka share (tests/contract/test_transport.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.contracts.codec import Headers
from streams.topics import BY_NAME, Topic

Position = tuple[str, int]
"""A topic and a partition of it."""
Positions = dict[Position, int]
"""Offset of the next record, by partition."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it lies in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes
    headers: Headers
    value: bytes
    time_ns: int = 0
    """When the transport took it, ns; 0 where it keeps no time."""


class TransportError(Exception):
    """Anything a transport raises on purpose."""


class ConnectionFailed(TransportError):
    """Nobody answers at the address: start the broker or name another one."""


class Retry(TransportError):
    """The call may succeed when it is repeated: the broker was busy or away for a moment."""


class Spent(Retry):
    """As Retry, but with a new connection alone: this one cannot go on, as where the broker gave a transaction up
    before its client did (librdkafka's issues 3297, 4849)."""


class BackPressure(TransportError):
    """Readers are too far behind for more to be taken: let them read, then publish again."""


class NotTaken(TransportError):
    """This record can never be published: too large, or to a topic that topics.py does not know."""


class Fenced(TransportError):
    """Another process has taken this one's place: stop."""


class Transport(Protocol):
    """Partitioned logs.

    `publish` may buffer and does not wait; what was published is safe only after `flush` or `commit` returned.
    Records of equal key keep their order. Delivery is at least once: `poll` starts at the group's committed
    offsets (or at the oldest record) when the group is first used by this object and then moves on by itself;
    what was polled and not committed comes again after a restart. One process per group.
    """

    def publish(self, topic: str, key: bytes, headers: Headers, value: bytes) -> None:
        """Append a record. Raises NotTaken, BackPressure, Fenced. May block only while its buffer is full."""

    def flush(self) -> None:
        """Wait until everything published is safe and visible. Raises Retry where some of it is not."""

    def poll(self, group: str, topics: Sequence[str], limit: int, timeout_s: float = 0.0) -> list[Record]:
        """At most `limit` next records of the group, in order within a partition; none where there are none
        after `timeout_s`. A group asks for the same topics every time. Raises Retry."""

    def commit(self, group: str, positions: Mapping[Position, int]) -> None:
        """Flush, then remember where the group goes on: never does a commit become visible before what was
        published earlier. In one transaction where the transport has them. Raises Retry, Fenced."""

    def committed(self, group: str, topics: Sequence[str]) -> Positions:
        """What was committed; partitions without a commit are left out."""

    def seek(self, group: str, topics: Sequence[str], positions: Mapping[Position, int]) -> None:
        """Poll goes on from here; partitions that are not named start at their oldest record."""

    def lag(self, group: str, topics: Sequence[str]) -> int:
        """Records that `poll` has not handed out yet."""

    def end_offsets(self, topics: Sequence[str]) -> Positions:
        """Offset of the next record to come, for every partition."""

    def close(self) -> None:
        """Flush and let go. No call may follow."""


def topic_of(name: str) -> Topic:
    """The table's row. Raises NotTaken."""
    if name not in BY_NAME:
        raise NotTaken(f"there is no topic {name!r}; streams/topics.py has {', '.join(BY_NAME)}")
    return BY_NAME[name]


def check_record(topic: Topic, key: bytes, headers: Headers, value: bytes) -> int:
    """The record's size in bytes. Raises NotTaken where the topic takes no record so large."""
    size = len(key) + len(value) + sum(len(k.encode()) + len(v) for k, v in headers)
    if size > topic.max_bytes:
        raise NotTaken(f"{topic.name} takes records of at most {topic.max_bytes} bytes, not {size} (key {key!r})")
    return size
