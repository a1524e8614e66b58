"""Answers clip requests: the most urgent goes first, in chunks, until it has arrived."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edge.agent.spool import DELIVERED, ClipDamaged, Spool, Stored
from streams.contracts.clips import CHUNK_BYTES, ClipChunk, ClipRequest, LostClip
from streams.contracts.clock import SECOND_NS


class Link(StrEnum):
    """What the vehicle is connected by."""

    NONE = "none"
    METERED = "metered"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class UploadPolicy:
    """How the link may be used."""

    metered_priority: int = 5
    """Over a metered link only requests of at least this priority go."""
    retry_s: float = 30.0
    """A chunk whose arrival was not confirmed for so long goes again."""


def order(requests: Iterable[ClipRequest]) -> list[ClipRequest]:
    """Who goes first: priority, then deadline, then who asked first. Pure."""
    return sorted(requests, key=lambda r: (-r.priority, r.before_ns, r.requested_ns, r.clip_id))


def allowed(request: ClipRequest, link: Link, policy: UploadPolicy) -> bool:
    """Whether the link may carry it now. Pure."""
    return link is Link.FREE or (link is Link.METERED and request.priority >= policy.metered_priority)


def chunk_count(clip_bytes: int) -> int:
    """Chunks of a clip."""
    return -(-clip_bytes // CHUNK_BYTES)


class Uploader:
    """Sends the requested clips of a spool. Progress is the spool's, so that it outlives the process."""

    def __init__(self, spool: Spool, vehicle: str, policy: UploadPolicy | None = None) -> None:
        self._spool, self._vehicle, self._policy = spool, vehicle, policy or UploadPolicy()
        self._in_flight: dict[tuple[str, int], int] = {}
        """Chunk -> when it was handed out, ns."""
        self._credit_bytes = 0
        self._open: tuple[str, bytes] = ("", b"")

    def answer(self, request: ClipRequest, now_ns: int) -> LostClip | None:
        """Takes a request, or says why the clip will not come. A repeated request changes nothing. Raises
        SpoolFull: ask again later."""
        if request.clip_id in self._spool.clips:
            if request.before_ns <= now_ns:
                return self._lost(request, "the request came after its own deadline", now_ns)
            self._spool.pin(request)
            return None
        why = self._spool.why_gone(request.clip_id)
        if why == DELIVERED:
            return None
        return self._lost(request, why or "this vehicle has no such clip", now_ns)

    def pump(self, now_ns: int, max_bytes: int, link: Link = Link.FREE) -> list[ClipChunk]:
        """The next chunks, of `max_bytes` in all; what is left of a budget too small for a chunk is saved up."""
        self._give_up_overdue(now_ns)
        self._credit_bytes = min(self._credit_bytes, CHUNK_BYTES) + max_bytes
        chunks: list[ClipChunk] = []
        for request in order(self._spool.requests.values()):
            if not allowed(request, link, self._policy):
                continue
            for index in self._missing(self._spool.clips[request.clip_id], now_ns):
                chunk = self._chunk(request.clip_id, index, now_ns)
                if chunk is None:
                    break
                if len(chunk.data) > self._credit_bytes:
                    return chunks
                self._credit_bytes -= len(chunk.data)
                self._in_flight[chunk.clip_id, index] = now_ns
                chunks.append(chunk)
        return chunks

    def arrived(self, chunk: ClipChunk, now_ns: int) -> None:
        """The other side has this chunk; with the last one the clip leaves the spool."""
        self._in_flight.pop((chunk.clip_id, chunk.index), None)
        self._spool.chunk_arrived(chunk.clip_id, chunk.index)
        if len(self._spool.sent.get(chunk.clip_id, ())) == chunk.count:
            self._spool.remove(chunk.clip_id, DELIVERED, now_ns)

    def _lost(self, request: ClipRequest, reason: str, now_ns: int) -> LostClip:
        return LostClip(request.clip_id, self._vehicle, now_ns, reason)

    def _give_up_overdue(self, now_ns: int) -> None:
        for request in list(self._spool.requests.values()):
            if request.before_ns <= now_ns:
                self._spool.remove(request.clip_id, "the deadline passed before it was uploaded", now_ns)

    def _missing(self, clip: Stored, now_ns: int) -> list[int]:
        """Chunks that neither arrived nor are on their way."""
        sent = self._spool.sent.get(clip.clip_id, set())
        stale_ns = now_ns - int(self._policy.retry_s * SECOND_NS)
        return [
            index
            for index in range(chunk_count(clip.bytes))
            if index not in sent and self._in_flight.get((clip.clip_id, index), stale_ns) <= stale_ns
        ]

    def _chunk(self, clip_id: str, index: int, now_ns: int) -> ClipChunk | None:
        """None where the clip turned out damaged; the spool has told so."""
        stored = self._spool.clips[clip_id]
        if self._open[0] != clip_id:
            try:
                self._open = (clip_id, self._spool.read(clip_id, now_ns))
            except ClipDamaged:
                return None
        return ClipChunk(
            clip_id=clip_id,
            vehicle=self._vehicle,
            time_ns=now_ns,
            index=index,
            count=chunk_count(stored.bytes),
            clip_sha256=stored.sha256,
            clip_bytes=stored.bytes,
            data=self._open[1][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
        )
