"""Messages over a transport: what everyone but an engine uses to send and to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.contracts.codec import Message, Rejected, decode, encode
from streams.topics import key_of
from streams.transport.base import Position, Positions, Record, Transport, topic_of
from streams.transport.dead_letter import send_to_dead_letters


def send(transport: Transport, topic: str, message: Message, source: str = "fleetwheel") -> None:
    """Publish a message under its key. Raises TypeError for another topic's message, Rejected, and as publish."""
    row = topic_of(topic)
    headers, value = encode(message, source)
    transport.publish(topic, key_of(row, message).encode(), headers, value)


@dataclass(slots=True)
class Inbox:
    """A group's messages: `receive` some, act on them, then `done`."""

    transport: Transport
    group: str
    topics: Sequence[str]
    _positions: Positions = field(default_factory=dict)

    def receive(self, now_ns: int, limit: int = 500, timeout_s: float = 0.0) -> list[Message]:
        """The next messages; what is no message goes to the dead letters."""
        records = self.transport.poll(self.group, self.topics, limit, timeout_s)
        self._positions |= after(records)
        return [m for m in (self._decode(r, now_ns) for r in records) if m is not None]

    def done(self) -> None:
        """What was received has been dealt with: a restart goes on behind it."""
        if self._positions:
            self.transport.commit(self.group, self._positions)
            self._positions = {}

    def lag(self) -> int:
        """Records that were not received yet."""
        return self.transport.lag(self.group, self.topics)

    def _decode(self, record: Record, now_ns: int) -> Message | None:
        try:
            return decode(record.headers, record.value, now_ns)
        except Rejected as error:
            send_to_dead_letters(self.transport, record, error.reason, error.detail, now_ns)
            return None


def after(records: Sequence[Record]) -> Positions:
    """Where to go on behind these records."""
    positions: dict[Position, int] = {}
    for r in records:
        positions[r.topic, r.partition] = max(r.offset + 1, positions.get((r.topic, r.partition), 0))
    return positions
