"""The memory transport keeps the contract, and its own promises about room."""

from __future__ import annotations

import pytest

from streams.transport.base import BackPressure
from streams.transport.memory import MemoryTransport
from streams.transport.messages import after
from tests.contract.transport import EVENTS, HEADERS, JOBS, TransportContract


class TestMemory(TransportContract):
    @pytest.fixture
    def transport(self) -> MemoryTransport:
        return MemoryTransport()

    def test_what_readers_have_committed_makes_room(self) -> None:
        transport = MemoryTransport(topic_bytes=10_000)
        for i in range(500):
            transport.publish(EVENTS, b"car", HEADERS, b"x" * 100)
            if i % 20 == 19:
                records = transport.poll("g", [EVENTS], 100)
                transport.commit("g", after(records))
        assert sum(transport.end_offsets([EVENTS]).values()) == 500

    def test_what_a_reader_waits_for_is_not_dropped(self) -> None:
        transport = MemoryTransport(topic_bytes=10_000)
        transport.poll("slow", [EVENTS], 1)
        with pytest.raises(BackPressure, match="slow"):
            for _ in range(500):
                transport.publish(EVENTS, b"car", HEADERS, b"x" * 100)
        transport.restart("slow")
        first = transport.poll("slow", [EVENTS], 1)[0]
        assert first.offset == 0

    def test_without_readers_the_oldest_goes(self) -> None:
        transport = MemoryTransport(topic_bytes=10_000)
        for i in range(500):
            transport.publish(EVENTS, b"car", HEADERS, f"{i}".encode() * 20)
        records = transport.poll("late", [EVENTS], 1000)
        assert records[-1].value.startswith(b"499")
        assert records[0].offset > 0
        assert transport.lag("late", [EVENTS]) == 0

    def test_a_group_keeps_to_its_topics(self) -> None:
        transport = MemoryTransport()
        transport.poll("g", [EVENTS], 1)
        with pytest.raises(ValueError, match="reads"):
            transport.poll("g", [JOBS], 1)
