"""The audit log: who did what to what and when, each line bound to the one before by its hash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from registry.backends import locked, sync_folder
from registry.errors import Corrupt, Retry
from registry.store import NOT_JSON, canonical_json
from streams.contracts.ids import sha256_hex

START = "0" * 64
"""What the first entry names as its predecessor."""


class Entry(Struct, frozen=True):
    """A line of the log."""

    sequence: int
    time_ns: int
    actor: str
    action: str
    subject: str
    detail: dict[str, str]
    previous: str
    """sha256 of the entry before."""
    sha256: str = ""
    """Of this entry's canonical JSON with this field empty."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log goes. Kept elsewhere, it anchors the log: a shortened log no longer reaches it."""

    entries: int
    sha256: str


class AuditLog:
    """An append-only file of JSON lines, shared by threads and processes.

    An entry is durable when `append` returns. A crash can leave half a line at the end: it was never acknowledged,
    readers pass over it and the next append cuts it off. Raises Retry (disk), Corrupt (changed entries).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(
        self, *, actor: str, action: str, subject: str, time_ns: int, detail: dict[str, str] | None = None
    ) -> Entry:
        """Write an entry and wait until it is on the disk."""
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            last, end = _last(self._path)
            sequence, previous = (last.sequence + 1, last.sha256) if last else (0, START)
            entry = _sealed(Entry(sequence, time_ns, actor, action, subject, detail or {}, previous))
            try:
                self._write(canonical_json(entry) + b"\n", end)
            except OSError as error:
                raise Retry(f"{self._path} cannot be written: {error}") from error
        return entry

    def entries(self) -> Iterator[Entry]:
        """All entries in order, each checked against the one before. Raises Corrupt naming the line."""
        previous = START
        for number, line in enumerate(self._lines()):
            entry = _checked(line, f"{self._path} line {number + 1}")
            if (entry.sequence, entry.previous) != (number, previous):
                raise Corrupt(f"{self._path} line {number + 1} does not follow the line before it")
            previous = entry.sha256
            yield entry

    def verify(self, anchor: Head | None = None) -> Head:
        """Check every entry, and that the log still reaches an anchor that was kept. Raises Corrupt."""
        head, anchored = Head(0, START), anchor in (None, Head(0, START))
        for entry in self.entries():
            head = Head(entry.sequence + 1, entry.sha256)
            anchored = anchored or head == anchor
        if not anchored:
            raise Corrupt(f"{self._path} was cut or rewritten: it does not contain its anchor {anchor}")
        return head

    def _lines(self) -> Iterator[bytes]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))

    def _write(self, line: bytes, end: int) -> None:
        fresh = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.truncate(end)
            file.seek(end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync_folder(self._path.parent)


def _sealed(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, sha256=sha256_hex(canonical_json(entry)))


def _checked(line: bytes, where: str) -> Entry:
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except NOT_JSON as error:
        raise Corrupt(f"{where} is not an entry: {error}") from error
    sealed = _sealed(msgspec.structs.replace(entry, sha256=""))
    if sealed != entry or canonical_json(entry) + b"\n" != line:
        raise Corrupt(f"{where} was changed: its hash is another")
    return entry


def _last(path: Path) -> tuple[Entry | None, int]:
    """The last whole entry and the byte after it."""
    if not path.exists():
        return None, 0
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0 and tail.count(b"\n") < 2:
            step = min(position, 64 * 1024)
            position -= step
            file.seek(position)
            tail = file.read(step) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    if not whole:
        return None, 0
    line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    return _checked(line, f"the last line of {path}"), position + len(whole)
