"""What every transport must do; memory and Kafka run the same tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import pytest

from streams.contracts.dead_letter import DeadLetter
from streams.topics import BY_NAME, DEAD_LETTER
from streams.transport.base import NotTaken, Record, Transport
from streams.transport.dead_letter import letters_of
from streams.transport.memory import partition_of
from streams.transport.messages import after

EVENTS, JOBS = "fleet.events", "learning.jobs"
HEADERS = (("ce_type", b"x"), ("ce_id", b"\x00\xff"))


class Restartable(Transport, Protocol):
    """A transport that can play the death of a reader."""

    def restart(self, group: str) -> None: ...


def read_all(transport: Transport, group: str, topics: Sequence[str], limit: int = 100) -> list[Record]:
    """Everything that is there."""
    records: list[Record] = []
    for _ in range(200):
        if not transport.lag(group, topics):
            break
        records += transport.poll(group, topics, limit, timeout_s=2.0)
    return records


def letters_in(transport: Transport, now_ns: int) -> list[DeadLetter]:
    """All dead letters."""
    transport.seek("letters", (DEAD_LETTER,), {})
    return letters_of(read_all(transport, "letters", (DEAD_LETTER,)), now_ns)


class TransportContract:
    """Mix in and give a `transport` fixture."""

    numbers = itertools.count()

    def group(self) -> str:
        return f"group-{next(self.numbers)}"

    def put(self, transport: Transport, count: int, topic: str = EVENTS, keys: int = 3) -> None:
        for i in range(count):
            transport.publish(topic, f"car-{i % keys}".encode(), HEADERS, f"{i}".encode())
        transport.flush()

    def test_what_was_published_is_read_whole(self, transport: Restartable) -> None:
        transport.publish(EVENTS, b"car-1", HEADERS, b'{"a": 1}')
        transport.flush()
        (record,) = read_all(transport, self.group(), [EVENTS])
        assert (record.topic, record.key, record.headers, record.value) == (EVENTS, b"car-1", HEADERS, b'{"a": 1}')
        assert record.partition == partition_of(b"car-1", BY_NAME[EVENTS].partitions)
        assert record.offset == 0

    def test_equal_keys_keep_their_order(self, transport: Restartable) -> None:
        self.put(transport, 60)
        records = read_all(transport, self.group(), [EVENTS], limit=7)
        assert len(records) == 60
        for key in range(3):
            mine = [int(r.value) for r in records if r.key == f"car-{key}".encode()]
            assert mine == list(range(key, 60, 3))

    def test_poll_gives_no_more_than_the_limit(self, transport: Restartable) -> None:
        self.put(transport, 20)
        group = self.group()
        while transport.lag(group, [EVENTS]):
            assert len(transport.poll(group, [EVENTS], 6, timeout_s=2.0)) <= 6

    def test_groups_read_on_their_own(self, transport: Restartable) -> None:
        self.put(transport, 5)
        first, second = self.group(), self.group()
        assert len(read_all(transport, first, [EVENTS])) == 5
        assert len(read_all(transport, second, [EVENTS])) == 5
        assert transport.poll(first, [EVENTS], 10) == []

    def test_what_was_not_committed_comes_again(self, transport: Restartable) -> None:
        group = self.group()
        self.put(transport, 10)
        first = read_all(transport, group, [EVENTS])
        transport.commit(group, after(first))
        self.put(transport, 4)
        lost = read_all(transport, group, [EVENTS])
        assert len(lost) == 4
        transport.restart(group)
        again = read_all(transport, group, [EVENTS])
        assert sorted(r.value for r in again) == sorted(r.value for r in lost)

    def test_commits_are_remembered(self, transport: Restartable) -> None:
        group = self.group()
        self.put(transport, 10)
        assert transport.committed(group, [EVENTS]) == {}
        positions = after(read_all(transport, group, [EVENTS]))
        transport.commit(group, positions)
        assert transport.committed(group, [EVENTS]) == positions
        transport.restart(group)
        assert read_all(transport, group, [EVENTS]) == []

    def test_seek_moves_a_group(self, transport: Restartable) -> None:
        group = self.group()
        for i in range(6):
            transport.publish(JOBS, b"one", HEADERS, f"{i}".encode())
        transport.flush()
        records = read_all(transport, group, [JOBS])
        place = (JOBS, records[0].partition)
        transport.seek(group, [JOBS], {place: 4})
        assert [r.value for r in read_all(transport, group, [JOBS])] == [b"4", b"5"]
        transport.seek(group, [JOBS], {})
        assert len(read_all(transport, group, [JOBS])) == 6

    def test_lag_and_ends_count_records(self, transport: Restartable) -> None:
        group = self.group()
        assert transport.lag(group, [EVENTS, JOBS]) == 0
        self.put(transport, 9)
        assert transport.lag(group, [EVENTS, JOBS]) >= 9
        assert len(read_all(transport, group, [EVENTS, JOBS])) == 9
        assert transport.lag(group, [EVENTS, JOBS]) == 0
        assert len(transport.end_offsets([EVENTS])) == BY_NAME[EVENTS].partitions
        assert sum(transport.end_offsets([EVENTS]).values()) >= 9

    def test_large_records_pass_up_to_the_topics_bound(self, transport: Restartable) -> None:
        bound = BY_NAME[EVENTS].max_bytes
        noise = bytes(range(256)) * (bound // 256 + 1)
        transport.publish(EVENTS, b"k", (), noise[: bound - 1])
        transport.publish(DEAD_LETTER, b"k", (), (noise * 2)[: bound + 400_000])
        transport.flush()
        with pytest.raises(NotTaken, match="at most 1048588 bytes"):
            transport.publish(EVENTS, b"k", (), noise[:bound])
        (record,) = read_all(transport, self.group(), [EVENTS])
        assert len(record.value) == bound - 1

    def test_an_unknown_topic_is_named(self, transport: Restartable) -> None:
        with pytest.raises(NotTaken, match=r"no topic 'fleet\.evens'"):
            transport.publish("fleet.evens", b"k", (), b"")
