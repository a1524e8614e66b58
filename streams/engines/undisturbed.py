"""The undisturbed run: what the inline engine decides over memory, phase by phase. What other engines decide, and
what any of them decides when things die, is held against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streams.contracts.clock import VirtualClock
from streams.contracts.codec import Headers, Message, encode
from streams.contracts.ids import sha256_hex
from streams.engines.inline import InlineEngine
from streams.stage import AnyStage
from streams.topics import BY_NAME, TOPICS, key_of
from streams.transport.memory import MemoryTransport


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as a producer sends it."""

    topic: str
    key: bytes
    headers: Headers
    value: bytes


@dataclass(frozen=True, slots=True)
class Phase:
    """Records that come at one instant, a whole millisecond."""

    time_ns: int
    records: tuple[Sent, ...]


@dataclass(slots=True)
class Contents:
    """A store that remembers, by sha256."""

    held: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes, sha256: str | None = None) -> None:
        """Raises ValueError where the name is not that of the bytes."""
        name = sha256_hex(data)
        if sha256 != name:
            raise ValueError(f"contents {name} were to be kept as {sha256}")
        self.held[name] = data


def sent(message: Message, topic: str = "", source: str = "fleetwheel") -> Sent:
    """The record of a message, by default on the topic that carries its type."""
    row = BY_NAME[topic] if topic else next(t for t in TOPICS if isinstance(message, t.carries))
    headers, value = encode(message, source)
    key = key_of(row, message) if isinstance(message, row.carries) else "stray"
    return Sent(row.name, key.encode(), headers, value)


def play(
    phases: Sequence[Phase], stages: Sequence[AnyStage], sink: Contents, limit: int = 500
) -> Iterator[MemoryTransport]:
    """All that each phase leads to, at its instant; the transport after each of them. `limit`: records a step."""
    transport, clock = MemoryTransport(), VirtualClock(phases[0].time_ns)
    engine = InlineEngine(transport, stages, clock, sink=sink, limit=limit, by_partition=True)
    for phase in phases:
        clock.advance(phase.time_ns - clock.now_ns())
        for r in phase.records:
            transport.publish(r.topic, r.key, r.headers, r.value)
        engine.run_until_idle()
        yield transport
