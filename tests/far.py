"""A transport that is as slow as a real broker may be: what was not flushed nobody sees, and what was asked for
comes with the next question at the earliest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.contracts.codec import Headers
from streams.transport.base import Position, Record
from streams.transport.memory import MemoryTransport


class FarTransport(MemoryTransport):
    """Every answer that has records takes two questions, the second of which must be ready to wait."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[tuple[str, bytes, Headers, bytes]] = []
        self._asked: set[str] = set()

    def publish(self, topic: str, key: bytes, headers: Headers, value: bytes) -> None:
        """Kept back until `flush`."""
        self._held.append((topic, key, headers, value))

    def flush(self) -> None:
        """Now everybody sees them."""
        held, self._held = self._held, []
        for record in held:
            super().publish(*record)

    def commit(self, group: str, positions: Mapping[Position, int]) -> None:
        """Never visible before what was published earlier."""
        self.flush()
        super().commit(group, positions)

    def poll(self, group: str, topics: Sequence[str], limit: int, timeout_s: float = 0.0) -> list[Record]:
        """Nothing the first time, and nothing to whom does not wait."""
        if group not in self._asked or not timeout_s:
            self._asked.add(group)
            return []
        self._asked.discard(group)
        return super().poll(group, topics, limit, timeout_s)
