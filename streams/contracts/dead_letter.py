"""What could not be taken, kept whole."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from streams.contracts.types import Count, Name, Text, TimeNs


class DeadLetter(Struct, frozen=True, tag="fleetwheel.dead-letter.v1", tag_field="type"):
    """A record that was refused: the reason, where it stood, and its original bytes."""

    topic: Name
    partition: Count
    offset: Count
    time_ns: TimeNs
    reason: Name
    """A short code: malformed, oversized, future-dated, stale, unknown-type, unknown-version, mismatch."""
    detail: Text
    key: bytes = b""
    value: bytes = b""
    headers: Annotated[list[tuple[str, bytes]], Meta(max_length=64)] = []
