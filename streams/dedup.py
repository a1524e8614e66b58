"""Deduplication: the first of equal events passes, a changed copy is refused. Also the memory of ids that other
stages use to be idempotent."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.drive import TriggerEvent
from streams.stage import Emit, Outcome, Refused, at_least
from streams.state import unpack

Named = TypeVar("Named")
GENERATIONS = 8
"""An id is kept for at least (GENERATIONS - 1) / GENERATIONS of the window."""


RECENT = 2048
"""The newest ids lie apart until they are so many: adding one must not copy all."""


class Generation(msgspec.Struct, frozen=True):
    """Ids of one stretch of time, each with the checksum of what it named, in the order they came."""

    since_ns: int
    ids: dict[str, int] = {}
    """Whole multiples of RECENT."""
    recent: dict[str, int] = {}
    """The rest: how a stream was cut does not show."""

    def __len__(self) -> int:
        return len(self.ids) + len(self.recent)

    @property
    def parts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Where an id may be."""
        return self.ids, self.recent

    def adding(self, new: dict[str, int]) -> Generation:
        """With these ids."""
        if not self.ids.keys().isdisjoint(new):
            return Generation(self.since_ns).adding(self.ids | self.recent | new)
        if len(self.recent) + len(new) < RECENT:
            return Generation(self.since_ns, self.ids, self.recent | new)
        items = list((self.recent | new).items())
        whole = len(items) - len(items) % RECENT
        return Generation(self.since_ns, self.ids | dict(items[:whole]), dict(items[whole:]))


class Seen(msgspec.Struct, frozen=True):
    """Ids of the recent past, newest generation last. Forgets by whole generations: by age, and by number."""

    window_ns: int
    limit: int
    generations: tuple[Generation, ...] = ()

    def __contains__(self, name: str) -> bool:
        return any(name in part for g in self.generations for part in g.parts)

    def __len__(self) -> int:
        return sum(len(g) for g in self.generations)

    def fresh(self, named: dict[str, Named]) -> dict[str, Named]:
        """Those whose id is not known, in their order; faster than asking for each."""
        parts = [part for g in self.generations for part in g.parts]
        known = {name for part in parts for name in part.keys() & named.keys()}
        return {name: value for name, value in named.items() if name not in known} if known else named

    def admit(self, names: Sequence[str], now_ns: int) -> tuple[list[int], Seen]:
        """Rows of the ids that are not known, and the memory with them, as if they had come one by one: the same
        however a stream is cut into batches."""
        seen, rows, start = self.remember({}, now_ns), list[int](), 0
        while start < len(names):
            room = seen._room(now_ns)
            first = {names[row]: row for row in range(len(names) - 1, start - 1, -1)}
            new = sorted(seen.fresh(first).values())
            some = new[: max(room, 1)]
            seen = seen.remember({names[row]: 0 for row in some}, now_ns)
            rows += some
            # A new generation may have made room by forgetting one: what comes next is asked for again.
            start = some[-1] + 1 if some and (not room or len(some) < len(new)) else len(names)
        return rows, seen

    def checksum(self, name: str) -> int | None:
        """What was remembered with an id; None where it is not known."""
        return next((part[name] for g in self.generations for part in g.parts if name in part), None)

    def remember(self, new: dict[str, int], now_ns: int) -> Seen:
        """With these ids added, and what is too old or too much forgotten. Itself where nothing changes."""
        kept = tuple(g for g in self.generations if now_ns - g.since_ns <= self.window_ns)
        if not new:
            return self if len(kept) == len(self.generations) else msgspec.structs.replace(self, generations=kept)
        if kept and len(new) <= self._room(now_ns):
            kept = (*kept[:-1], kept[-1].adding(new))
        else:
            kept = (*kept, Generation(now_ns).adding(new))[-GENERATIONS:]
        return msgspec.structs.replace(self, generations=kept)

    def _room(self, now_ns: int) -> int:
        """Ids that the newest generation still takes."""
        newest = self.generations[-1] if self.generations else None
        if newest is None or now_ns - newest.since_ns >= self.window_ns // GENERATIONS:
            return 0
        return max(max(self.limit // GENERATIONS, 1) - len(newest), 0)


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """How long, and how many, event ids are remembered."""

    window_ns: int = 24 * 3600 * SECOND_NS
    limit: int = 400_000

    def __post_init__(self) -> None:
        at_least(self, 1, "window_ns", "limit")


class Dedup:
    """fleet.events -> events.fresh: each event once. A known id with other content is refused as replayed."""

    name = "dedup"

    def __init__(self, config: DedupConfig | None = None) -> None:
        self.config = config or DedupConfig()

    def initial(self) -> Seen:
        """Nothing seen."""
        return Seen(self.config.window_ns, self.config.limit)

    def step(self, state: Seen, batch: Sequence[Message], now_ns: int) -> Outcome[Seen]:
        """Pass the first of each id; O(batch), whatever the window holds."""
        state = state.remember({}, now_ns)
        events = [e for e in batch if isinstance(e, TriggerEvent)]
        new = state.fresh({e.event_id: e for e in events})
        if len(new) == len(events):
            # The usual batch: nothing came twice.
            sums = dict(zip(new, checksums(events), strict=True))
            return Outcome(state.remember(sums, now_ns), tuple([Emit("events.fresh", e) for e in events]))
        return self._some_again(state, events, now_ns)

    def _some_again(self, state: Seen, events: Sequence[TriggerEvent], now_ns: int) -> Outcome[Seen]:
        new: dict[str, int] = {}
        emits: list[Emit] = []
        refused: list[Refused] = []
        for event, checksum in zip(events, checksums(events), strict=True):
            known = new.get(event.event_id, state.checksum(event.event_id))
            if known is None:
                new[event.event_id] = checksum
                emits.append(Emit("events.fresh", event))
            elif known != checksum:
                detail = f"event {event.event_id} of {event.vehicle} came before with other content"
                refused.append(Refused(event, "replayed", detail))
        return Outcome(state.remember(new, now_ns), tuple(emits), tuple(refused))

    def load(self, data: bytes) -> Seen:
        """Raises StateUnreadable."""
        bounds = {"window_ns": self.config.window_ns, "limit": self.config.limit}
        return msgspec.structs.replace(unpack(data, Seen), **bounds)


_encoder = msgspec.msgpack.Encoder(order="deterministic")


def checksums(messages: Sequence[Message]) -> list[int]:
    """CRC-32 of each: tells an honest re-send from a changed one; it is no defence against forgery."""
    buffer, found = bytearray(4096), list[int]()
    for message in messages:
        _encoder.encode_into(message, buffer)
        found.append(zlib.crc32(buffer))
    return found
