"""The inline engine: stages in one process, deterministic, on whatever clock it is given. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from streams.contracts.clock import Clock
from streams.contracts.codec import Message, Rejected, decode, encode
from streams.engines.snapshot import Snapshot, read_snapshot, write_snapshot
from streams.stage import AnyStage, Content, Emit, Refused
from streams.topics import BY_NAME, key_of
from streams.topology import BY_STAGE, TOPOLOGY, topics_read
from streams.transport.base import Positions, Record, Transport
from streams.transport.dead_letter import send_to_dead_letters
from streams.transport.messages import after


class ContentSink(Protocol):
    """Where contents are stored, such as registry.store.Store.

    `put` returns once they are durable; storing the same content again changes nothing. It may block, and raises
    where it could not store: the engine then publishes and commits nothing of the round.
    """

    def put(self, data: bytes, sha256: str | None = None) -> object: ...


class NowhereToStore(ValueError):
    """A stage has contents to store and the engine was given no sink."""


@dataclass(slots=True)
class Counts:
    """What a stage did since the engine began."""

    taken: int = 0
    emitted: int = 0
    refused: int = 0


class InlineEngine:
    """Runs stages of the topology over a transport.

    A round: poll; decode; run every stage in the topology's order, also on an empty batch, so that time passes;
    store contents; publish emits and dead letters; save states and offsets in one file, if a folder was given;
    commit. Dying anywhere repeats a round; readers deduplicate by id. Without a folder, states live as long as
    this object and a new one starts at the committed offsets with empty states.
    """

    def __init__(
        self,
        transport: Transport,
        stages: Iterable[AnyStage],
        clock: Clock,
        *,
        sink: ContentSink | None = None,
        state_dir: Path | None = None,
        group: str = "fleetwheel",
        limit: int = 500,
    ) -> None:
        """Raises ValueError for a stage that the topology does not have, StateUnreadable for a damaged file."""
        named = {stage.name: stage for stage in stages}
        unknown = sorted(set(named) - set(BY_STAGE))
        if unknown:
            raise ValueError(f"stages {unknown} are not in streams/topology.py: {sorted(BY_STAGE)}")
        self._stages = [named[node.stage] for node in TOPOLOGY if node.stage in named]
        self._transport, self._clock, self._sink = transport, clock, sink
        self._group, self._limit = group, limit
        self._topics = topics_read(tuple(named))
        self._file = state_dir / f"{group}.state" if state_dir else None
        self.states: dict[str, Any] = {s.name: s.initial() for s in self._stages}
        self.counts = {s.name: Counts() for s in self._stages}
        self._offsets: Positions = {}
        self._restore()

    def step(self, timeout_s: float = 0.0) -> int:
        """One round; the number of records it took. Raises what the transport and the sink raise; then call again
        on a new engine, as this one's states are ahead of its offsets."""
        now_ns = self._clock.now_ns()
        records = self._transport.poll(self._group, self._topics, self._limit, timeout_s)
        round_ = _Round(self._transport, now_ns)
        for record in records:
            round_.read(record)
        for stage in self._stages:
            self._run(stage, round_)
        self._store(round_.contents)
        round_.publish()
        self._commit(records)
        return len(records)

    def run_until_idle(self, rounds: int = 10_000) -> int:
        """Rounds until no record is left to take, its own outputs included; the number of records taken."""
        taken = self.step()
        for _ in range(rounds):
            if not self.lag():
                break
            taken += self.step(timeout_s=1.0)
        return taken

    def lag(self) -> int:
        """Records not taken yet."""
        return self._transport.lag(self._group, self._topics)

    def _run(self, stage: AnyStage, round_: _Round) -> None:
        batch = [m for stream in BY_STAGE[stage.name].reads for m in round_.streams.get(stream, ())]
        outcome = stage.step(self.states[stage.name], batch, round_.now_ns)
        self.states[stage.name] = outcome.state
        round_.take(stage.name, outcome.emits, outcome.refused, outcome.contents)
        counts = self.counts[stage.name]
        counts.taken += len(batch)
        counts.emitted += len(outcome.emits)
        counts.refused += len(outcome.refused)

    def _store(self, contents: Sequence[Content]) -> None:
        for content in contents:
            if self._sink is None:
                raise NowhereToStore(f"content {content.sha256} has no sink: give the engine a store")
            self._sink.put(content.data, content.sha256)

    def _commit(self, records: Sequence[Record]) -> None:
        """States and offsets together, then the group's offsets: on a restart the file's offsets count."""
        self._offsets |= after(records)
        if self._file is not None:
            # What was published must be safe before the offsets move on.
            self._transport.flush()
            dumps = {s.name: s.dump(self.states[s.name]) for s in self._stages}
            write_snapshot(self._file, Snapshot(self._offsets, dumps))
        if records:
            self._transport.commit(self._group, after(records))

    def _restore(self) -> None:
        snapshot = read_snapshot(self._file) if self._file else None
        if snapshot is None:
            return
        self._offsets = snapshot.offsets
        for stage in self._stages:
            if stage.name in snapshot.states:
                self.states[stage.name] = stage.load(snapshot.states[stage.name])
        self._transport.seek(self._group, self._topics, self._offsets)


class _Round:
    """What one round has read and has to write."""

    def __init__(self, transport: Transport, now_ns: int) -> None:
        self.now_ns = now_ns
        self.streams: dict[str, list[Message]] = {}
        self.contents: list[Content] = []
        self._transport = transport
        self._out: list[tuple[str, Message, str]] = []
        self._dead: list[tuple[Record, str, str]] = []
        self._origin: dict[int, Record] = {}

    def read(self, record: Record) -> None:
        """Decode a record onto its stream; what cannot be decoded is a dead letter."""
        try:
            message = decode(record.headers, record.value, self.now_ns)
        except Rejected as error:
            self._dead.append((record, error.reason, error.detail))
            return
        if not isinstance(message, BY_NAME[record.topic].carries):
            detail = f"{type(message).__name__} does not belong into {record.topic}"
            self._dead.append((record, "misplaced", detail))
            return
        self._origin[id(message)] = record
        self.streams.setdefault(record.topic, []).append(message)

    def take(
        self, stage: str, emits: Sequence[Emit], refused: Sequence[Refused], contents: Sequence[Content]
    ) -> None:
        """What a stage's step came to: edges stay in the process, topics go out."""
        allowed = BY_STAGE[stage].writes
        for emit in emits:
            if emit.stream not in allowed:
                raise ValueError(f"{stage} writes {allowed}, not {emit.stream!r}")
            if emit.stream in BY_NAME:
                self._out.append((emit.stream, emit.message, stage))
            else:
                self.streams.setdefault(emit.stream, []).append(emit.message)
        self._dead += [(self._record_of(r.message), r.reason, f"{stage}: {r.detail}") for r in refused]
        self.contents += contents

    def publish(self) -> None:
        """Everything out, in the order in which it came about."""
        for stream, message, stage in self._out:
            headers, value = encode(message, f"fleetwheel/{stage}")
            key = key_of(BY_NAME[stream], message).encode()
            self._transport.publish(stream, key, headers, value)
        for record, reason, detail in self._dead:
            send_to_dead_letters(self._transport, record, reason, detail, self.now_ns)

    def _record_of(self, message: Message) -> Record:
        """The record that a message came in; one that waited in a stage's state is written anew."""
        known = self._origin.get(id(message))
        if known is not None:
            return known
        headers, value = encode(message)
        topic = next(t for t in BY_NAME.values() if isinstance(message, t.carries))
        return Record(topic.name, 0, 0, key_of(topic, message).encode(), headers, value)
