"""What happened to each clip, from the vehicle's own hash to the stored bytes: losses are counted, not assumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from registry.errors import RegistryError
from streams.contracts.clips import ArchivedClip, ClipRequest, LostClip
from streams.contracts.codec import Message
from streams.contracts.drive import TriggerEvent


class Objects(Protocol):
    """registry.store.Store, as far as it is read here: `get` verifies the hash and raises RegistryError."""

    def get(self, sha256: str) -> bytes: ...


@dataclass(slots=True)
class Clip:
    """One offered clip."""

    turn: int
    condition: str
    """Known because the world is simulated."""
    sha256: str
    """As the vehicle wrote it."""
    event: TriggerEvent
    request: ClipRequest | None = None
    archived: ArchivedClip | None = None
    lost: str = ""
    """The reason that was told."""


@dataclass(slots=True)
class Ledger:
    """All offered clips by id."""

    clips: dict[str, Clip] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    """Clips whose stored bytes were read back and have the vehicle's hash."""

    def offer(self, clip: Clip) -> None:
        """A vehicle offers a clip; the same offer again changes nothing."""
        self.clips.setdefault(clip.event.event_id, clip)

    def observe(self, message: Message) -> None:
        """Take note of a request, of an archived clip, of a loss."""
        if isinstance(message, ClipRequest | ArchivedClip | LostClip) and message.clip_id in self.clips:
            clip = self.clips[message.clip_id]
            if isinstance(message, ClipRequest):
                clip.request = message
            elif isinstance(message, ArchivedClip):
                clip.archived = message
            else:
                clip.lost = message.reason

    def verify(self, store: Objects) -> None:
        """Read every archived clip back and compare it with what the vehicle wrote."""
        for name, clip in self.clips.items():
            if clip.archived is None or name in self.verified or clip.archived.sha256 != clip.sha256:
                continue
            try:
                store.get(clip.sha256)
            except RegistryError:
                continue
            self.verified.add(name)

    def counts(self, turn: int | None = None) -> dict[str, int]:
        """recorded, requested, stored, lost, bytes; of one turn or of all. Call `verify` first: stored means read
        back with the vehicle's hash, and what was requested and is not stored is lost."""
        chosen = {n: c for n, c in self.clips.items() if turn is None or c.turn == turn}
        requested = {n for n, c in chosen.items() if c.request is not None}
        stored = requested & self.verified
        return {
            "recorded": len(chosen),
            "requested": len(requested),
            "stored": len(stored),
            "lost": len(requested - stored),
            "bytes": sum(a.bytes for n in stored if (a := chosen[n].archived) is not None),
        }

    def open_requests(self) -> int:
        """Requested clips that have neither come nor been told lost."""
        return sum(c.request is not None and c.archived is None and not c.lost for c in self.clips.values())

    def stored_by_condition(self, turn: int) -> dict[str, int]:
        """How many stored clips each condition gave."""
        found: dict[str, int] = {}
        for name, clip in self.clips.items():
            if clip.turn == turn and name in self.verified:
                found[clip.condition] = found.get(clip.condition, 0) + 1
        return dict(sorted(found.items()))
