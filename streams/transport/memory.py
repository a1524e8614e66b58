"""A transport in memory: the embedded default, and what tests use. Deterministic."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.contracts.codec import Headers
from streams.topics import BY_NAME, TOPICS, Topic
from streams.transport.base import BackPressure, Position, Positions, Record, check_record, topic_of


@dataclass(slots=True)
class _Log:
    """One partition: records from `start` on, and their sizes."""

    start: int = 0
    records: list[Record] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def drop(self, size: int, until: int) -> int:
        """Drop the oldest, `size` bytes or more, but nothing at `until` or later; the bytes that were dropped."""
        number, freed = 0, 0
        while freed < size and self.start + number < min(until, self.end):
            freed += self.sizes[number]
            number += 1
        del self.records[:number], self.sizes[:number]
        self.start += number
        return freed


class MemoryTransport:
    """Records live as long as this object. A topic holds at most `topic_bytes`: what every group that reads it has
    committed is dropped to make room (the oldest, where nobody reads it), and where that is not enough, publishing
    raises BackPressure. So nothing that somebody waits for is lost."""

    def __init__(self, topic_bytes: int = 256 * 1024 * 1024) -> None:
        self._bound = topic_bytes
        self._logs: dict[Position, _Log] = {(t.name, p): _Log() for t in TOPICS for p in range(t.partitions)}
        self._bytes: dict[str, int] = {t.name: 0 for t in TOPICS}
        self._next: dict[str, Positions] = {}
        self._committed: dict[str, Positions] = {}

    def publish(self, topic: str, key: bytes, headers: Headers, value: bytes) -> None:
        """Visible at once."""
        row = topic_of(topic)
        size = check_record(row, key, headers, value)
        self._make_room(row, size)
        partition = partition_of(key, row.partitions)
        log = self._logs[topic, partition]
        log.records.append(Record(topic, partition, log.end, key, headers, value))
        log.sizes.append(size)
        self._bytes[topic] += size

    def flush(self) -> None:
        """Nothing is buffered."""

    def poll(self, group: str, topics: Sequence[str], limit: int, timeout_s: float = 0.0) -> list[Record]:
        """Partition after partition in the order of the names; never waits."""
        positions = self._positions(group, topics)
        records: list[Record] = []
        for place in sorted(positions):
            log = self._logs[place]
            first = max(positions[place], log.start)
            take = min(limit - len(records), log.end - first)
            records += log.records[first - log.start : first - log.start + take]
            positions[place] = first + take
        return records

    def commit(self, group: str, positions: Mapping[Position, int]) -> None:
        """Takes effect at once."""
        self._committed.setdefault(group, {}).update(positions)

    def committed(self, group: str, topics: Sequence[str]) -> Positions:
        """See Transport."""
        return {p: o for p, o in self._committed.get(group, {}).items() if p[0] in topics}

    def seek(self, group: str, topics: Sequence[str], positions: Mapping[Position, int]) -> None:
        """See Transport."""
        self._next.setdefault(group, {}).update({p: positions.get(p, 0) for p in self._partitions(topics)})

    def lag(self, group: str, topics: Sequence[str]) -> int:
        """See Transport."""
        positions = self._positions(group, topics)
        return sum(self._logs[p].end - max(o, self._logs[p].start) for p, o in positions.items())

    def end_offsets(self, topics: Sequence[str]) -> Positions:
        """See Transport."""
        return {p: self._logs[p].end for p in self._partitions(topics)}

    def restart(self, group: str) -> None:
        """As if the group's process had died: polling goes on from what was committed."""
        self._next.pop(group, None)

    def close(self) -> None:
        """Nothing to let go."""

    def _partitions(self, topics: Sequence[str]) -> list[Position]:
        return [(t, p) for t in topics for p in range(topic_of(t).partitions)]

    def _positions(self, group: str, topics: Sequence[str]) -> Positions:
        """Where the group goes on, for these topics; a live view for one and the same set of topics."""
        known = self._next.setdefault(group, {})
        committed = self._committed.get(group, {})
        for place in self._partitions(topics):
            known.setdefault(place, committed.get(place, 0))
        if len(known) == sum(BY_NAME[t].partitions for t in dict.fromkeys(topics)):
            return known
        raise ValueError(f"group {group!r} reads {sorted({t for t, _ in known})}, not {sorted(topics)} alone")

    def _make_room(self, topic: Topic, size: int) -> None:
        """A tenth at a time, so that a full topic does not move its records at each publish."""
        if self._bytes[topic.name] + size <= self._bound:
            return
        readers = sorted({g for known in (self._next, self._committed) for g in known if _reads(known[g], topic)})
        wanted = max(size, self._bound // 10)
        for partition in range(topic.partitions):
            place = (topic.name, partition)
            log = self._logs[place]
            done = min((self._committed.get(g, {}).get(place, 0) for g in readers), default=log.end)
            freed = log.drop(wanted, done)
            self._bytes[topic.name] -= freed
            wanted = max(0, wanted - freed)
        held = self._bytes[topic.name]
        if held + size > self._bound:
            raise BackPressure(f"{topic.name} holds {held} bytes that {readers} have not committed")


def _reads(positions: Positions, topic: Topic) -> bool:
    return any(name == topic.name for name, _ in positions)


def partition_of(key: bytes, partitions: int) -> int:
    """CRC-32 of the key, as librdkafka's consistent partitioner."""
    return zlib.crc32(key) % partitions
