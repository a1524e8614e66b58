"""The inline engine: stages in one process, deterministic, on whatever clock it is given. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from streams.contracts.clock import Clock
from streams.engines.now import Now, clock_time
from streams.engines.round import Counts, Round, States, in_order, of_scope
from streams.engines.round import by_partition as split
from streams.engines.snapshot import Snapshot, read_snapshot, write_snapshot
from streams.stage import AnyStage, Content
from streams.state import pack
from streams.topology import topics_read
from streams.transport.base import Positions, Record, Transport
from streams.transport.messages import after


class ContentSink(Protocol):
    """Where contents are stored, such as registry.store.Store.

    `put` returns once they are durable; storing the same content again changes nothing. It may block, and raises
    where it could not store: the engine then publishes and commits nothing of the round.
    """

    def put(self, data: bytes, sha256: str | None = None) -> object: ...


class NowhereToStore(ValueError):
    """A stage has contents to store and the engine was given no sink."""


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
        by_partition: bool = False,
        now: Now | None = None,
    ) -> None:
        """`by_partition`: stages of scope "partition" keep one state for each partition of their input, as the
        distributed engines do. `now`: instead of the clock's time, such as what records say.

        Raises UnknownStage, StateUnreadable for a damaged file."""
        self._stages = in_order(stages)
        self._in_lanes = of_scope(self._stages, "partition") if by_partition else []
        self._whole = of_scope(self._stages, "fleet") if by_partition else self._stages
        self._transport, self._now, self._sink = transport, now or clock_time(clock), sink
        self._group, self._limit = group, limit
        self._topics = topics_read(tuple(s.name for s in self._stages))
        self._file = state_dir / f"{group}.state" if state_dir else None
        self.states: States = {s.name: s.initial() for s in self._whole}
        self.lanes: dict[int, States] = {}
        """States of scope "partition", by partition."""
        self.counts = {s.name: Counts() for s in self._stages}
        self.taken = 0
        self.rejected = 0
        """Of the records taken, those that no stage was shown: dead letters."""
        self._offsets: Positions = {}
        self._now_ns = 0
        self._restore()

    def step(self, timeout_s: float = 0.0) -> int:
        """One round; the number of records it took. Raises what the transport and the sink raise; then call again
        on a new engine, as this one's states are ahead of its offsets."""
        records = self._transport.poll(self._group, self._topics, self._limit, timeout_s)
        self._now_ns = self._now(records, self._now_ns)
        rounds = self._run(records, self._now_ns)
        self._store([c for r in rounds for c in r.contents])
        for topic, key, headers, value in (out for r in rounds for out in r.outgoing()):
            self._transport.publish(topic, key, headers, value)
        self._commit(records)
        self.taken += len(records)
        self.rejected += sum(r.rejected for r in rounds)
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

    def _run(self, records: Sequence[Record], now_ns: int) -> list[Round]:
        whole = Round(now_ns)
        if not self._in_lanes:
            whole.read(records)
        rounds = self._run_lanes(records, now_ns) if self._in_lanes else []
        for lane in rounds:
            whole.adopt(lane)
        whole.run(self._whole, self.states, self.counts)
        return [*rounds, whole]

    def _run_lanes(self, records: Sequence[Record], now_ns: int) -> list[Round]:
        taken = split(records)
        rounds: list[Round] = []
        for lane in sorted({*self.lanes, *taken}):
            states = self.lanes.setdefault(lane, {s.name: s.initial() for s in self._in_lanes})
            rounds.append(Round(now_ns))
            rounds[-1].read(taken.get(lane, ()))
            rounds[-1].run(self._in_lanes, states, self.counts)
        return rounds

    def _store(self, contents: Sequence[Content]) -> None:
        for content in contents:
            if self._sink is None:
                raise NowhereToStore(f"content {content.sha256} has no sink: give the engine a store")
            self._sink.put(content.data, content.sha256)

    def _commit(self, records: Sequence[Record]) -> None:
        """States and offsets together, then the group's offsets: on a restart the file's offsets count."""
        self._offsets |= after(records)
        if self._file is not None or not records:
            # What was published must be safe before the file's offsets move on; and where no commit follows, which
            # flushes in one transaction with its offsets, it must be seen by whoever asks after this step.
            self._transport.flush()
        if self._file is not None:
            write_snapshot(self._file, Snapshot(self._offsets, self._dumps(), self._now_ns))
        if records:
            self._transport.commit(self._group, after(records))

    def _dumps(self) -> dict[str, bytes]:
        """By stage; of scope "partition" by "stage/partition"."""
        dumps = {s.name: pack(self.states[s.name]) for s in self._whole}
        for lane, states in self.lanes.items():
            dumps |= {f"{s.name}/{lane}": pack(states[s.name]) for s in self._in_lanes}
        return dumps

    def _restore(self) -> None:
        snapshot = read_snapshot(self._file) if self._file else None
        if snapshot is None:
            return
        self._offsets, self._now_ns = snapshot.offsets, snapshot.now_ns
        named = {s.name: s for s in self._stages}
        for key, dump in snapshot.states.items():
            name, _, lane = key.partition("/")
            if lane and name in (s.name for s in self._in_lanes):
                states = self.lanes.setdefault(int(lane), {s.name: s.initial() for s in self._in_lanes})
                states[name] = named[name].load(dump)
            elif not lane and name in self.states:
                self.states[name] = named[name].load(dump)
        self._transport.seek(self._group, self._topics, self._offsets)
        if self._transport.committed(self._group, self._topics) != self._offsets:
            # A process died between its file and its commit: where nothing more comes, lag would be told for ever.
            self._transport.commit(self._group, self._offsets)
