"""A lane: the states of the stages that share a key, and what is saved of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from streams.delta import apply, delta
from streams.engines.flink.frames import Frame
from streams.engines.round import Counts, Round, States
from streams.stage import AnyStage
from streams.state import pack
from streams.transport.base import Record

COMPACT_BYTES = 1 << 20
"""Changes are folded into a new base when they outweigh it, but not below this."""


class Base(msgspec.Struct, frozen=True):
    """A lane as it was saved whole."""

    now_ns: int
    heard_ns: int
    states: dict[str, bytes]
    """By stage, as its `dump` writes it."""


class Change(msgspec.Struct, frozen=True):
    """What changed since the base or the change before."""

    now_ns: int
    heard_ns: int
    states: dict[str, bytes]
    """By stage, as streams.delta writes it."""


class FromLane(NamedTuple):
    """What another lane's round wrote to these topics."""

    round: Round
    topics: Collection[str]


class Saved(msgspec.Struct, frozen=True):
    """What to write: a new base, which replaces all, or one more change."""

    base: bytes | None = None
    change: bytes | None = None


class Lane:
    """States of one key. Time never goes back in it."""

    def __init__(self, stages: Sequence[AnyStage], counts: dict[str, Counts]) -> None:
        self._stages, self._counts = stages, counts
        self.states: States = {s.name: s.initial() for s in stages}
        self.now_ns = 0
        self.heard_ns = 0
        """Time of the last batch with records."""
        self._kept: States | None = None
        self._base_bytes = self._change_bytes = 0

    def step(
        self,
        frames: Sequence[Frame],
        now_ns: int,
        store: Callable[[bytes, str], object],
        handed: FromLane | None = None,
    ) -> Round:
        """One round, on records or on what another lane's has handed over. Its contents are stored before it
        returns."""
        self.now_ns = max(self.now_ns, now_ns)
        if frames or handed:
            self.heard_ns = self.now_ns
        done = Round(self.now_ns)
        if handed:
            done.adopt(handed.round, handed.topics)
        for topic, some in _by_topic(frames).items():
            done.take(topic, [f.value for f in some], partial(_record, some))
        done.run(self._stages, self.states, self._counts)
        for content in done.contents:
            store(content.data, content.sha256)
        return done

    def quiet_ns(self, now_ns: int) -> int:
        """How long nothing came."""
        return now_ns - self.heard_ns

    def save(self) -> Saved | None:
        """What has to be written so that a restart goes on from here; None where nothing changed."""
        if self._kept is None or self._change_bytes > max(self._base_bytes, COMPACT_BYTES):
            return self._save_base()
        states = {
            s.name: delta(self._kept[s.name], self.states[s.name])
            for s in self._stages
            if self.states[s.name] is not self._kept[s.name]
        }
        if not states:
            return None
        change = msgspec.msgpack.encode(Change(self.now_ns, self.heard_ns, states))
        self._kept = dict(self.states)
        self._change_bytes += len(change)
        return Saved(change=change)

    def restore(self, base: bytes | None, changes: Sequence[bytes]) -> None:
        """Go on from what was saved; a stage that is new begins with its initial state. Raises StateUnreadable."""
        if base is None:
            return
        saved = msgspec.msgpack.decode(base, type=Base)
        for stage in self._stages:
            if stage.name in saved.states:
                self.states[stage.name] = stage.load(saved.states[stage.name])
        self.now_ns, self.heard_ns = saved.now_ns, saved.heard_ns
        for data in changes:
            self._apply(msgspec.msgpack.decode(data, type=Change))
        self._kept = dict(self.states)
        self._base_bytes, self._change_bytes = len(base), sum(map(len, changes))

    def _apply(self, change: Change) -> None:
        for name, data in change.states.items():
            if name in self.states:
                self.states[name] = apply(self.states[name], data)
        self.now_ns, self.heard_ns = change.now_ns, change.heard_ns

    def _save_base(self) -> Saved:
        states: dict[str, Any] = {s.name: pack(self.states[s.name]) for s in self._stages}
        base = msgspec.msgpack.encode(Base(self.now_ns, self.heard_ns, states))
        self._kept = dict(self.states)
        self._base_bytes, self._change_bytes = len(base), 0
        return Saved(base=base)


def _record(frames: Sequence[Frame], i: int) -> Record:
    return frames[i].record()


def _by_topic(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    topics: dict[str, list[Frame]] = {}
    for frame in frames:
        topics.setdefault(frame.topic, []).append(frame)
    return topics
