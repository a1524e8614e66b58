"""`fleet registrar`: what was archived becomes findable: the clip index, and the lineage from event to clip."""

from __future__ import annotations

from pathlib import Path

from fleet.role import Work, run_role, say, stop_on_signals
from registry.clips import ClipIndex
from registry.lineage import Kind, Lineage, Node
from streams.contracts.clips import ArchivedClip
from streams.contracts.clock import SystemClock
from streams.contracts.codec import Message
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import Inbox

GROUP = "registrar"


def run_registrar(broker: str, prefix: str, home: Path, idle_s: float | None) -> None:
    """Until stopped. Raises ConnectionFailed, OSError."""
    stop = stop_on_signals()
    home.mkdir(parents=True, exist_ok=True)
    say("registrar", f"clips and lineage in {home}")
    run_role("registrar", KafkaConfig(broker, prefix=prefix), lambda: _work(home), stop, idle_s)


def _work(home: Path) -> Work:
    index, lineage, clock = ClipIndex(home / "clips.sqlite"), Lineage(home / "lineage.sqlite"), SystemClock()

    def work(transport: KafkaTransport) -> int:
        inbox = Inbox(transport, GROUP, ("fleet.archive",))
        messages = inbox.receive(clock.now_ns(), timeout_s=1.0)
        register(index, lineage, messages)
        inbox.done()
        return len(messages)

    return work


def register(index: ClipIndex, lineage: Lineage, messages: list[Message]) -> int:
    """Take archived clips; again is no change. The number that was new. Raises Conflict for an id with other
    content, Retry."""
    clips = [m for m in messages if isinstance(m, ArchivedClip)]
    lineage.link_all((Node(Kind.EVENT, c.event_id), Node(Kind.CLIP, c.clip_id)) for c in clips)
    return index.add_all(clips)
