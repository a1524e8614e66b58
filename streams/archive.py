"""Archive: chunks become whole clips, hashes checked; a requested clip either arrives or is told lost.

The stage is pure. Bytes wait in its state until a clip is whole; then they leave as `Outcome.contents`, named by
their sha256, and the engine stores them before it publishes the ArchivedClip and commits. A crash in between
repeats the same content under the same name: nothing is lost, nothing is doubled.

Requests and chunks come over different topics, so a chunk may overtake its request: it waits a while.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from streams.contracts.clips import CHUNK_BYTES, ArchivedClip, ClipChunk, ClipRequest, LostClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, message_id
from streams.contracts.ids import sha256_hex
from streams.dedup import Seen
from streams.stage import Content, Emit, Outcome, Refused
from streams.state import unpack

Up = ClipChunk | LostClip
"""What a vehicle sends about a clip."""


@dataclass(frozen=True, slots=True)
class ArchiveConfig:
    """Bounds on what waits in memory."""

    partial_bytes: int = 1 << 30
    """Of all chunks that wait for others; a chunk beyond it is refused."""
    early_bytes: int = 1 << 26
    """Of chunks that came before their request."""
    early_ns: int = 60 * SECOND_NS
    """How long those wait."""
    open_requests: int = 100_000
    closed_ids: int = 200_000


class Open(msgspec.Struct, frozen=True):
    """A request and the chunks that came, by `_place`."""

    request: ClipRequest
    chunks: dict[str, ClipChunk] = {}
    trouble: str = ""
    """Why chunks were refused; goes into the word of its loss."""


class Early(msgspec.Struct, frozen=True):
    """A message that came before its request."""

    message: Up
    until_ns: int


class ArchiveState(msgspec.Struct, frozen=True):
    """Open requests by clip id; closed ones with the checksum of their hash ("" where lost)."""

    closed: Seen
    open: dict[str, Open] = {}
    early: dict[str, Early] = {}


class Archive:
    """fleet.clip-requests + fleet.clips -> fleet.archive."""

    name = "archive"

    def __init__(self, uri_of: Callable[[str], str], config: ArchiveConfig | None = None) -> None:
        """`uri_of` tells where content of a sha256 lies, such as registry.store.Store.uri: a pure function."""
        self.uri_of = uri_of
        self.config = config or ArchiveConfig()

    def initial(self) -> ArchiveState:
        """Nothing was asked for."""
        return ArchiveState(Seen(30 * 24 * 3600 * SECOND_NS, self.config.closed_ids))

    def step(self, state: ArchiveState, batch: Sequence[Message], now_ns: int) -> Outcome[ArchiveState]:
        """Requests, then what waited, then what came, then deadlines."""
        work = _Work(self, state, now_ns)
        work.take_requests([m for m in batch if isinstance(m, ClipRequest)])
        for message in (m for m in batch if isinstance(m, ClipChunk | LostClip)):
            work.take(message)
        work.time_passes()
        return work.outcome()

    def load(self, data: bytes) -> ArchiveState:
        """Raises StateUnreadable."""
        return unpack(data, ArchiveState)


class _Work:
    """One step: copies of the tables, and what follows."""

    def __init__(self, stage: Archive, state: ArchiveState, now_ns: int) -> None:
        self.stage, self.config, self.now_ns = stage, stage.config, now_ns
        self.state = state
        self.open, self.early = dict(state.open), dict(state.early)
        self.closed: dict[str, int] = {}
        self.emits: list[Emit] = []
        self.refused: list[Refused] = []
        self.contents: list[Content] = []
        self.partial_bytes = sum(len(c.data) for o in state.open.values() for c in o.chunks.values())
        self.early_bytes = _bytes_of(e.message for e in state.early.values())

    def outcome(self) -> Outcome[ArchiveState]:
        """What the step came to."""
        closed = self.state.closed.remember(self.closed, self.now_ns)
        state = ArchiveState(closed, self.open, self.early)
        return Outcome(state, tuple(self.emits), tuple(self.refused), tuple(self.contents))

    def take_requests(self, requests: Sequence[ClipRequest]) -> None:
        """Open each clip once, and take what came before it."""
        for request in requests:
            if request.clip_id in self.open or self._closed(request.clip_id) is not None:
                continue
            if len(self.open) >= self.config.open_requests:
                self.refuse(request, "full", f"{len(self.open)} clips are waited for; replay this one later")
                continue
            self.open[request.clip_id] = Open(request)
        waiting = [e.message for _, e in sorted(self.early.items()) if e.message.clip_id in self.open]
        self.early = {n: e for n, e in self.early.items() if e.message.clip_id not in self.open}
        self.early_bytes -= _bytes_of(waiting)
        for message in waiting:
            self.take(message)

    def take(self, message: Up) -> None:
        """A chunk, or the word that a clip is lost."""
        entry = self.open.get(message.clip_id)
        if entry is None:
            self._without_request(message)
        elif message.vehicle != entry.request.vehicle:
            detail = f"clip {message.clip_id} was asked of {entry.request.vehicle}, not of {message.vehicle}"
            self.refuse(message, "foreign", detail)
        elif isinstance(message, LostClip):
            self._lose(entry, message.reason, message.time_ns)
        else:
            self._add(entry, message)

    def time_passes(self) -> None:
        """Deadlines of requests, patience with what came early."""
        for entry in [o for _, o in sorted(self.open.items()) if o.request.before_ns <= self.now_ns]:
            came = f"{len(entry.chunks)} of {_count(entry)} chunks came"
            reason = f"the deadline passed: {came}{'; ' if entry.trouble else ''}{entry.trouble}"
            self._lose(entry, reason, entry.request.before_ns)
        for name, early in sorted(self.early.items()):
            if early.until_ns <= self.now_ns:
                self.early.pop(name)
                self._unrequested(early.message)

    def refuse(self, message: Message, reason: str, detail: str) -> None:
        """For the dead letters."""
        self.refused.append(Refused(message, reason, detail))

    def _without_request(self, message: Up) -> None:
        closed = self._closed(message.clip_id)
        if closed is None:
            self._wait(message)
        elif isinstance(message, ClipChunk) and closed == _LOST:
            self.refuse(message, "late", f"clip {message.clip_id} was given up before this chunk came")
        elif isinstance(message, ClipChunk) and closed != _name_of(message.clip_sha256):
            self.refuse(message, "replayed", f"clip {message.clip_id} is archived with another sha256")

    def _wait(self, message: Up) -> None:
        name = f"{message.clip_id}/{_place(message)}/{message_id(message)}"
        if name in self.early:
            return
        size = _bytes_of([message])
        if self.early_bytes + size > self.config.early_bytes:
            self._unrequested(message)
            return
        self.early_bytes += size
        self.early[name] = Early(message, self.now_ns + self.config.early_ns)

    def _unrequested(self, message: Up) -> None:
        self.refuse(message, "unrequested", f"nobody asked {message.vehicle} for clip {message.clip_id}")

    def _add(self, entry: Open, chunk: ClipChunk) -> None:
        problem = _misfit(chunk, next(iter(entry.chunks.values()), chunk))
        known = entry.chunks.get(_place(chunk))
        if not problem and known is not None:
            if known.data == chunk.data:
                return
            problem = ("inconsistent", f"chunk {chunk.index} came before with other bytes")
        if not problem and self.partial_bytes + len(chunk.data) > self.config.partial_bytes:
            problem = ("full", f"{self.partial_bytes} bytes wait for other chunks; replay this one later")
        if problem:
            self.refuse(chunk, problem[0], f"clip {chunk.clip_id}: {problem[1]}")
            self.open[chunk.clip_id] = replace(entry, trouble=problem[1])
            return
        self.partial_bytes += len(chunk.data)
        entry = replace(entry, chunks=entry.chunks | {_place(chunk): chunk})
        self.open[chunk.clip_id] = entry
        if len(entry.chunks) == chunk.count:
            self._complete(entry)

    def _complete(self, entry: Open) -> None:
        """All chunks are there: archive the clip, or refuse them all and wait for better ones."""
        chunks = [entry.chunks[i] for i in sorted(entry.chunks)]
        data = b"".join(c.data for c in chunks)
        self.partial_bytes -= len(data)
        found = sha256_hex(data)
        if found != chunks[0].clip_sha256:
            detail = f"its {len(data)} bytes have sha256 {found}, not {chunks[0].clip_sha256}"
            for chunk in chunks:
                self.refuse(chunk, "wrong-hash", f"clip {chunk.clip_id}: {detail}")
            self.open[entry.request.clip_id] = Open(entry.request, trouble=detail)
            return
        del self.open[entry.request.clip_id]
        self.closed[entry.request.clip_id] = _name_of(found)
        self.contents.append(Content(found, data))
        self.emits.append(Emit("fleet.archive", self._archived(entry.request, chunks[0], found)))

    def _archived(self, request: ClipRequest, first: ClipChunk, sha256: str) -> ArchivedClip:
        return ArchivedClip(
            clip_id=request.clip_id,
            event_id=request.event_id,
            vehicle=request.vehicle,
            time_ns=request.event_ns or request.requested_ns,
            uri=self.stage.uri_of(sha256),
            sha256=sha256,
            bytes=first.clip_bytes,
            region=request.region,
            cell=request.cell,
            kind=request.kind,
            cause=request.cause,
            inclusion_probability=request.inclusion_probability,
            reason=request.reason,
        )

    def _lose(self, entry: Open, reason: str, time_ns: int) -> None:
        request = entry.request
        self.partial_bytes -= _bytes_of(entry.chunks.values())
        del self.open[request.clip_id]
        self.closed[request.clip_id] = _LOST
        lost = LostClip(request.clip_id, request.vehicle, time_ns, reason[:2000])
        self.emits.append(Emit("fleet.archive", lost))

    def _closed(self, clip_id: str) -> int | None:
        return self.closed.get(clip_id, self.state.closed.checksum(clip_id))


_LOST = -1


def _place(message: Up) -> str:
    """Sorts as the clip's bytes do, the word of a loss last."""
    return f"{message.index:06d}" if isinstance(message, ClipChunk) else "lost"


def _name_of(sha256: str) -> int:
    return zlib.crc32(sha256.encode())


def _count(entry: Open) -> str:
    return next((str(c.count) for c in entry.chunks.values()), "?")


def _bytes_of(messages: Iterable[Up]) -> int:
    return sum(len(m.data) if isinstance(m, ClipChunk) else 0 for m in messages)


def _misfit(chunk: ClipChunk, first: ClipChunk) -> tuple[str, str] | None:
    """Why a chunk cannot be part of the clip: a code and a sentence."""
    count = -(-chunk.clip_bytes // CHUNK_BYTES)
    if chunk.count != count or chunk.index >= count:
        return "wrong-size", f"chunk {chunk.index} of {chunk.count}: {chunk.clip_bytes} bytes are {count} chunks"
    size = min(CHUNK_BYTES, chunk.clip_bytes - chunk.index * CHUNK_BYTES)
    if len(chunk.data) != size:
        return "wrong-size", f"chunk {chunk.index} has {len(chunk.data)} bytes, not {size}"
    if (chunk.clip_sha256, chunk.clip_bytes) != (first.clip_sha256, first.clip_bytes):
        return "inconsistent", f"chunk {chunk.index} tells another sha256 or size than the first that came"
    return None
