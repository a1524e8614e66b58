"""The vehicle's on-disk queue: clips that may be asked for, and messages that are not delivered yet.

Layout: `clips/ID.mcap` (whole or absent), `journal` (what is true of them), `quarantine/` (what was damaged). A
clip counts as accepted once its journal record is written; then only eviction by worth, delivery, a missed
deadline or damage ends it. Each leaves a tombstone, and for a clip that was asked for a LostClip in the outbox.
"""

from __future__ import annotations

import errno
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from edge.agent.files import remove_temporaries, write_atomic
from edge.agent.journal import Journal
from streams.contracts.clips import ClipRequest, LostClip
from streams.contracts.codec import Message, message_id

Durability = Literal["fsync", "none"]
COMPACT_BYTES = 1 << 20
"""The journal is rewritten when it has grown this far beyond its last rewrite."""
MAX_TOMBSTONES = 4096
MAX_OUTBOX = 20_000
"""Messages that wait for delivery; further ones are not accepted."""
DELIVERED = "delivered"
"""The reason of a clip that arrived."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolFull(OSError):
    """There is no room, even without every clip of less worth: nothing was written. Free the disk, raise the
    limit, or let the uploader run."""


class ClipDamaged(ValueError):
    """The bytes on disk are not those that were written; the file is in quarantine, a tombstone says why."""


class Stored(msgspec.Struct, frozen=True, tag=True):
    """A clip lies in the spool."""

    clip_id: str
    bytes: int
    sha256: str
    value: float
    time_ns: int


class Gone(msgspec.Struct, frozen=True, tag=True):
    """A clip left the spool; `reason` is for a person."""

    clip_id: str
    reason: str
    time_ns: int


class Asked(msgspec.Struct, frozen=True, tag=True):
    """A clip is wanted: never evicted from here on."""

    request: ClipRequest


class Sent(msgspec.Struct, frozen=True, tag=True):
    """Chunk `index` of a clip has arrived."""

    clip_id: str
    index: int


class Queued(msgspec.Struct, frozen=True, tag=True):
    """A message is to be delivered."""

    message: Message


class Delivered(msgspec.Struct, frozen=True, tag=True):
    """The message of this id has arrived."""

    id: str


Record = Stored | Gone | Asked | Sent | Queued | Delivered
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode
_decode_stored = msgspec.json.Decoder(Stored).decode
_NO_RECORD = "its record on the vehicle's disk was damaged"


def victims(
    clips: Iterable[Stored], pinned: Iterable[str], excess_bytes: int, below: float
) -> list[Stored] | None:
    """The clips to give up to free `excess_bytes`: least value first, then oldest; never a pinned one nor one
    worth `below` or more. None where they would not be enough. Pure."""
    kept, chosen = set(pinned), []
    for clip in sorted(clips, key=lambda c: (c.value, c.time_ns, c.clip_id)):
        if excess_bytes <= 0:
            break
        if clip.clip_id not in kept and clip.value < below:
            chosen.append(clip)
            excess_bytes -= clip.bytes
    return chosen if excess_bytes <= 0 else None


def recognised(clip_id: str, data: bytes, damaged: Iterable[bytes]) -> Stored | None:
    """The record of these bytes among damaged journal lines; the hash vouches for the bytes. Pure."""
    sha256 = hashlib.sha256(data).hexdigest()
    for line in damaged:
        try:
            found = _decode_stored(line[max(line.find(b"{"), 0) :])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if found.sha256 == sha256:
            return msgspec.structs.replace(found, clip_id=clip_id, bytes=len(data))
    return None


class Spool:
    """One vehicle's spool. Every method that writes may raise SpoolFull, and then has changed nothing."""

    def __init__(self, folder: Path, limit_bytes: int, durability: Durability = "fsync") -> None:
        """Opens or makes the spool, and mends what a crash left. `durability` "fsync" survives a power cut, "none"
        only the death of the process. Raises OSError where the folder cannot be used."""
        self._clips_folder, self._quarantine = folder / "clips", folder / "quarantine"
        for path in (self._clips_folder, self._quarantine):
            path.mkdir(parents=True, exist_ok=True)
        self.limit_bytes = limit_bytes
        self._durable = durability == "fsync"
        remove_temporaries(folder)
        remove_temporaries(self._clips_folder)
        self.clips: dict[str, Stored] = {}
        self.requests: dict[str, ClipRequest] = {}
        """Each of a clip that is here."""
        self.sent: dict[str, set[int]] = {}
        self.outbox: dict[str, Message] = {}
        self._tombstones: OrderedDict[str, Gone] = OrderedDict()
        self.bytes = 0
        self.evicted = 0
        self._journal_base = 0
        self._journal = Journal(folder / "journal", self._durable)
        self._recover()

    # Clips

    def put(self, clip_id: str, data: bytes, value: float, time_ns: int) -> Stored:
        """Takes a clip, giving up others of less value if it must. The same clip again is not an error. Raises
        SpoolFull: the clip was not taken."""
        if clip_id in self.clips:
            return self.clips[clip_id]
        stored = Stored(clip_id, len(data), hashlib.sha256(data).hexdigest(), value, time_ns)
        self._make_room(len(data) - (self.limit_bytes - self.bytes), value, time_ns)
        while True:
            try:
                write_atomic(self._path(clip_id), data, self._durable)
                self._append(stored)
            except OSError as error:
                self._path(clip_id).unlink(missing_ok=True)
                if error.errno not in _FULL:
                    raise
                self._make_room(1, value, time_ns)
            else:
                return stored

    def read(self, clip_id: str, time_ns: int) -> bytes:
        """The bytes of a clip. Raises KeyError for one that is not here and ClipDamaged for one that is not what
        was written."""
        stored = self.clips[clip_id]
        try:
            data = self._path(clip_id).read_bytes()
        except OSError as error:
            data = b""
            why = f"cannot be read: {error.strerror}"
        else:
            why = f"{len(data)} bytes with another hash than the {stored.bytes} written"
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            self._set_aside(clip_id)
            self.remove(clip_id, f"damaged on the vehicle's disk: {why}", time_ns)
            raise ClipDamaged(f"clip {clip_id}: {why}; set aside in {self._quarantine}")
        return data

    def remove(self, clip_id: str, reason: str, time_ns: int) -> None:
        """Ends a clip and its request; a LostClip goes out if it was asked for and not delivered. Works on a full
        disk: the clip is gone all the same, and the next start finds its file missing."""
        records: list[Record] = [Gone(clip_id, reason, time_ns)]
        request = self.requests.get(clip_id)
        if request and reason != DELIVERED:
            records.append(Queued(LostClip(clip_id, request.vehicle, time_ns, reason)))
        self._append_if_possible(*records)
        self._path(clip_id).unlink(missing_ok=True)

    def why_gone(self, clip_id: str) -> str | None:
        """What became of a clip that is no longer here; None if it was never heard of, or too long ago."""
        gone = self._tombstones.get(clip_id)
        return gone.reason if gone else None

    # Requests and progress

    def pin(self, request: ClipRequest) -> None:
        """Keeps a requested clip until it is delivered or too late. Raises KeyError for one that is not here."""
        if request.clip_id not in self.clips:
            raise KeyError(request.clip_id)
        if self.requests.get(request.clip_id) != request:
            self._append(Asked(request))

    def chunk_arrived(self, clip_id: str, index: int) -> None:
        """Remembers the progress of an upload, so that it resumes there."""
        if clip_id in self.clips and index not in self.sent.get(clip_id, ()):
            self._append_if_possible(Sent(clip_id, index))

    # Messages

    def enqueue(self, messages: Iterable[Message]) -> None:
        """Accepts messages for delivery: all, or none with SpoolFull. They stay until `delivered`."""
        new = [m for m in messages if message_id(m) not in self.outbox]
        if new and len(self.outbox) + len(new) > MAX_OUTBOX:
            raise SpoolFull(errno.ENOSPC, f"{len(self.outbox)} messages wait for delivery; connect the vehicle")
        self._append(*map(Queued, new))

    def delivered(self, ids: Iterable[str]) -> None:
        """The messages of these ids have arrived. Unknown ids change nothing."""
        for name in ids:
            if name in self.outbox:
                self._append_if_possible(Delivered(name))

    def close(self) -> None:
        """Gives the files back; the spool is as safe without."""
        self._journal.close()

    def _path(self, clip_id: str) -> Path:
        return self._clips_folder / f"{clip_id}.mcap"

    def _append(self, *records: Record) -> None:
        """Journal first, then memory: memory never knows more than the disk."""
        if not records:
            return
        try:
            self._journal.append(map(_encode, records))
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise SpoolFull(errno.ENOSPC, "no room for the spool's journal; free the disk") from error
        for record in records:
            self._apply(record)
        self._compact_if_grown()

    def _append_if_possible(self, *records: Record) -> None:
        """For records whose loss costs a repetition, no more: delivery is at least once."""
        try:
            self._append(*records)
        except SpoolFull:
            for record in records:
                self._apply(record)

    def _apply(self, record: Record) -> None:
        match record:
            case Stored(clip_id=name):
                self.bytes += record.bytes - (self.clips[name].bytes if name in self.clips else 0)
                self.clips[name] = record
            case Gone(clip_id=name):
                self._bury(record)
            case Asked(request=request):
                self.requests[request.clip_id] = request
            case Sent(clip_id=name):
                self.sent.setdefault(name, set()).add(record.index)
            case Queued(message=message):
                self.outbox[message_id(message)] = message
            case Delivered(id=name):
                self.outbox.pop(name, None)

    def _bury(self, gone: Gone) -> None:
        clip = self.clips.pop(gone.clip_id, None)
        self.bytes -= clip.bytes if clip else 0
        self.requests.pop(gone.clip_id, None)
        self.sent.pop(gone.clip_id, None)
        self._tombstones[gone.clip_id] = gone
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _make_room(self, excess_bytes: int, value: float, time_ns: int) -> None:
        chosen = victims(self.clips.values(), self.requests, excess_bytes, value)
        if chosen is None:
            raise SpoolFull(
                errno.ENOSPC,
                f"{self.bytes} of {self.limit_bytes} bytes are taken by clips that are requested or worth more; "
                "let the uploader run, free the disk or raise the limit",
            )
        for clip in chosen:
            self.remove(clip.clip_id, f"evicted for clips worth more than {clip.value:g}", time_ns)
            self.evicted += 1

    def _set_aside(self, clip_id: str) -> None:
        if self._path(clip_id).exists():
            self._path(clip_id).replace(self._quarantine / f"{clip_id}.mcap")

    def _recover(self) -> None:
        """Replays the journal, then makes files and records agree."""
        unreadable = list(self._journal.damaged)
        for data in self._journal.records:
            try:
                self._apply(_decode(data))
            except msgspec.MsgspecError:
                unreadable.append(data)
        if unreadable:
            write_atomic(self._quarantine / "journal-lines", b"\n".join(unreadable) + b"\n", self._durable)
        for clip in list(self.clips.values()):
            self._check(clip)
        for path in list(self._clips_folder.iterdir()):
            if path.suffix != ".mcap" or path.stem not in self.clips:
                self._clear(path, unreadable)
        for request in list(self.requests.values()):
            if request.clip_id not in self.clips:
                self.remove(request.clip_id, _NO_RECORD, request.requested_ns)
        self._compact_if_grown()

    def _clear(self, path: Path, unreadable: list[bytes]) -> None:
        """A file without a record was never accepted, or is gone; where records are damaged it may be neither."""
        name = path.stem
        if not unreadable or path.suffix != ".mcap" or name in self._tombstones:
            path.unlink()
        elif stored := recognised(name, path.read_bytes(), unreadable):
            self._append_if_possible(stored)
        else:
            self._set_aside(name)
            request = self.requests.get(name)
            self.remove(name, _NO_RECORD, request.requested_ns if request else 0)

    def _check(self, clip: Stored) -> None:
        """A clip of another length than written is damage; its hash is checked when it is read."""
        path = self._path(clip.clip_id)
        size = path.stat().st_size if path.exists() else None
        if size != clip.bytes:
            self._set_aside(clip.clip_id)
            found = "no file" if size is None else f"{size} bytes"
            self.remove(clip.clip_id, f"damaged on the vehicle's disk: {found} of {clip.bytes}", clip.time_ns)

    def _compact_if_grown(self) -> None:
        if self._journal.size - self._journal_base < COMPACT_BYTES:
            return
        records: list[Record] = [*self.clips.values(), *map(Asked, self.requests.values())]
        records += [Sent(name, index) for name, done in self.sent.items() for index in sorted(done)]
        records += [*self._tombstones.values(), *map(Queued, self.outbox.values())]
        try:
            self._journal.replace(map(_encode, records))
        except OSError as error:
            if error.errno not in _FULL:
                raise
        self._journal_base = self._journal.size
