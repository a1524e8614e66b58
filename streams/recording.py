"""Recorded topics as a file: one JSON object a line, readable and writable by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import MAX_DEAD_LETTER_BYTES
from streams.topics import TOPICS
from streams.transport.base import NotTaken, Record, TransportError, topic_of

REPLAYED = tuple(t.name for t in TOPICS if t.name not in ("fleet.clips", "fleet.dead-letter"))
"""What a replay reads: all that was said, without the clips themselves."""
MAX_LINE_BYTES = 3 * MAX_DEAD_LETTER_BYTES
"""The largest record, its quotes escaped."""


class BadRecording(TransportError):
    """A line is not a record: says which and why."""


class Line(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A record. Its value is text or, where it is none, base64."""

    topic: str
    value: str = ""
    value_base64: bytes = b""
    key: str = ""
    headers: dict[str, str] = {}
    partition: int = 0
    offset: int = 0
    time_ns: int = 0
    """When the transport took it; 0 where that is not known."""


_decoder = msgspec.json.Decoder(Line)


def write_recording(path: Path, records: Iterable[Record]) -> int:
    """Write records; their number."""
    count = 0
    with path.open("wb") as file:
        for record in records:
            file.write(msgspec.json.encode(_line(record)) + b"\n")
            count += 1
    return count


def read_recording(path: Path) -> Iterator[Record]:
    """The records of a file, in its order; one at a time. Raises BadRecording naming the line, OSError."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if line.strip():
                yield _record(path, number, line)


def time_of(record: Record) -> int:
    """When the transport took it, else when it happened, ns; 0 where neither is known."""
    if record.time_ns:
        return record.time_ns
    told = next((value for name, value in record.headers if name == "ce_time"), b"")
    try:
        return max(int(datetime.fromisoformat(told.decode()).timestamp() * SECOND_NS), 0)
    except (ValueError, OverflowError):
        return 0


def _line(record: Record) -> Line:
    try:
        value, raw = record.value.decode(), b""
    except UnicodeDecodeError:
        value, raw = "", record.value
    headers = {name: data.decode("utf-8", "replace") for name, data in record.headers}
    key = record.key.decode("utf-8", "replace")
    return Line(record.topic, value, raw, key, headers, record.partition, record.offset, record.time_ns)


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise BadRecording(f"{path}:{number}: longer than {MAX_LINE_BYTES} bytes")
        told = _decoder.decode(line)
        topic_of(told.topic)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NotTaken) as error:
        raise BadRecording(f"{path}:{number}: not a record: {error}") from error
    headers = tuple((name, text.encode()) for name, text in told.headers.items())
    value = told.value_base64 or told.value.encode()
    return Record(told.topic, told.partition, told.offset, told.key.encode(), headers, value, told.time_ns)
