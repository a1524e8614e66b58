"""The inline engine: the whole flow in one process, deterministic, and restartable at any instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from streams.archive import Archive
from streams.contracts.clips import CHUNK_BYTES, ArchivedClip, ClipChunk, ClipRequest
from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import Message
from streams.contracts.drive import TriggerEvent
from streams.contracts.ids import sha256_hex
from streams.contracts.jobs import JobRequested
from streams.contracts.releases import Rollout
from streams.dedup import Dedup
from streams.engines.inline import InlineEngine, NowhereToStore
from streams.engines.snapshot import read_snapshot
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.rollouts import Rollouts
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage, Emit, Outcome
from streams.state import StateUnreadable
from streams.tagging import Tagging
from streams.transport.base import Record, Transport
from streams.transport.memory import MemoryTransport, partition_of
from streams.transport.messages import Inbox, send
from streams.triggers import Triggers, TriggersConfig
from tests.far import FarTransport
from tests.samples import T0, embedding_of, event, finished, release, request

WINDOW = 60 * SECOND_NS
START = T0 // WINDOW * WINDOW


class Sink:
    """A store in memory that can fail."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.broken = False

    def put(self, data: bytes, sha256: str | None = None) -> None:
        if self.broken:
            raise OSError("the disk is full")
        assert sha256 == sha256_hex(data)
        self.held[sha256] = data


def stages() -> list[AnyStage]:
    return [
        Rollouts(),
        Triggers(TriggersConfig(start_clips=3, start_vehicles=2, debounce_ns=0)),
        Archive(lambda s: f"store://{s}"),
        Selection(SelectionConfig(window_ns=WINDOW, clips=6)),
        NoveltyStage(NoveltyConfig(block=4)),
        Tagging(),
        Dedup(),
    ]


def engine_over(transport: Transport, clock: VirtualClock, sink: Sink, **options: Any) -> InlineEngine:
    return InlineEngine(transport, stages(), clock, sink=sink, **options)


def events(count: int) -> list[TriggerEvent]:
    return [event(i, f"car-{i % 4}", embedding=embedding_of([i % 5 + 1, 1, i % 3])) for i in range(count)]


def upload(transport: Transport, requests: list[ClipRequest], now_ns: int) -> None:
    for r in requests:
        data = f"clip {r.clip_id} ".encode() * 20_000
        count = -(-len(data) // CHUNK_BYTES)
        for i in range(count):
            piece = data[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES]
            chunk = ClipChunk(r.clip_id, r.vehicle, now_ns, i, count, sha256_hex(data), len(data), piece)
            send(transport, "fleet.clips", chunk)


def messages_in(transport: Transport, topic: str, now_ns: int) -> list[Message]:
    return Inbox(transport, f"reader-{topic}", (topic,)).receive(now_ns, limit=10_000)


def turn(
    transport: MemoryTransport, restart: bool = False, folder: Path | None = None
) -> dict[str, list[Message]]:
    """One turn of the wheel; with `restart` the process dies after every round."""
    clock, sink = VirtualClock(START), Sink()
    engine = engine_over(transport, clock, sink, state_dir=folder, limit=7)

    def settle() -> None:
        nonlocal engine
        while True:
            engine.step()
            if restart:
                transport.restart("fleetwheel")
                engine = engine_over(transport, clock, sink, state_dir=folder, limit=7)
            if not engine.lag():
                break

    for e in [*events(40), *events(10)]:
        send(transport, "fleet.events", e)
    settle()
    clock.advance(WINDOW)
    settle()
    requests = [
        m for m in messages_in(transport, "fleet.clip-requests", clock.now_ns()) if isinstance(m, ClipRequest)
    ]
    upload(transport, requests, clock.now_ns())
    settle()
    jobs = [m for m in messages_in(transport, "learning.jobs", clock.now_ns()) if isinstance(m, JobRequested)]
    for job in jobs:
        send(transport, "learning.jobs", finished(job.fingerprint, model_version="m2", release=release(1)))
    settle()
    assert set(sink.held) == {m.sha256 for m in archive(transport, clock.now_ns())}
    topics = ("fleet.scenarios", "fleet.clip-requests", "learning.jobs", "fleet.releases", "fleet.dead-letter")
    found = {t: everything(transport, t, clock.now_ns()) for t in topics}
    return found | {"fleet.archive": list(archive(transport, clock.now_ns()))}


def everything(transport: MemoryTransport, topic: str, now_ns: int) -> list[Message]:
    transport.restart("all")
    return Inbox(transport, "all", (topic,)).receive(now_ns, limit=10_000)


def archive(transport: MemoryTransport, now_ns: int) -> list[ArchivedClip]:
    return [m for m in everything(transport, "fleet.archive", now_ns) if isinstance(m, ArchivedClip)]


def test_a_turn_of_the_wheel() -> None:
    found = turn(MemoryTransport())
    assert len(found["fleet.scenarios"]) == 40
    assert len(found["fleet.clip-requests"]) == 6 == len(found["fleet.archive"])
    requested = found["learning.jobs"][0]
    assert isinstance(requested, JobRequested) and len(requested.clips) >= 3
    assert set(requested.clips) <= {c.clip_id for c in found["fleet.archive"] if isinstance(c, ArchivedClip)}
    (rollout,) = found["fleet.releases"]
    assert isinstance(rollout, Rollout) and rollout.release == release(1)
    assert found["fleet.dead-letter"] == []


def test_the_same_input_gives_the_same_output() -> None:
    assert turn(MemoryTransport()) == turn(MemoryTransport())


def test_dying_after_every_round_changes_nothing(tmp_path: Path) -> None:
    assert turn(MemoryTransport(), restart=True, folder=tmp_path) == turn(MemoryTransport())


def test_dying_between_publishing_and_saving_repeats_only_what_readers_know(tmp_path: Path) -> None:
    """The state file is as old as its offsets: what comes again has the ids it had."""
    transport, clock, sink = MemoryTransport(), VirtualClock(START), Sink()
    for e in events(10):
        send(transport, "fleet.events", e)
    first = engine_over(transport, clock, sink, state_dir=tmp_path / "a", limit=100)
    first._commit = lambda records: None  # type: ignore[method-assign]  # the process dies here
    first.step()
    transport.restart("fleetwheel")
    engine_over(transport, clock, sink, state_dir=tmp_path / "a", limit=100).run_until_idle()
    scenarios = everything(transport, "fleet.scenarios", START)
    assert len(scenarios) == 20
    assert sorted(map(str, scenarios[:10])) == sorted(map(str, dict.fromkeys(map(str, scenarios))))


def test_dying_between_saving_and_committing_leaves_no_lag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing more comes: whoever waits for the group would wait for ever."""
    transport, clock = MemoryTransport(), VirtualClock(T0)
    send(transport, "fleet.events", event(0))
    with monkeypatch.context() as dying:
        dying.setattr(transport, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            InlineEngine(transport, [Dedup()], clock, group="g", state_dir=tmp_path).step()
    assert not transport.committed("g", ["fleet.events"])
    InlineEngine(transport, [Dedup()], clock, group="g", state_dir=tmp_path)
    assert sum(transport.committed("g", ["fleet.events"]).values()) == 1


def test_a_store_that_fails_loses_nothing(tmp_path: Path) -> None:
    transport, clock, sink = MemoryTransport(), VirtualClock(START), Sink()
    send(transport, "fleet.clip-requests", request("c"))
    engine = engine_over(transport, clock, sink, state_dir=tmp_path)
    engine.run_until_idle()
    upload(transport, [request("c")], START)
    sink.broken = True
    with pytest.raises(OSError, match="full"):
        engine.run_until_idle()
    assert archive(transport, START) == []
    sink.broken = False
    transport.restart("fleetwheel")
    engine_over(transport, clock, sink, state_dir=tmp_path).run_until_idle()
    assert [c.clip_id for c in archive(transport, START)] == ["c"] and len(sink.held) == 1


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    transport, clock = MemoryTransport(), VirtualClock(START)
    engine_over(transport, clock, Sink(), state_dir=tmp_path).step()
    (file,) = tmp_path.glob("*.state")
    assert read_snapshot(file) is not None
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StateUnreadable, match="damaged"):
        engine_over(transport, clock, Sink(), state_dir=tmp_path)


def test_a_stage_outside_the_topology_is_refused() -> None:
    class Stray(Dedup):
        name = "stray"

    with pytest.raises(ValueError, match="stray"):
        InlineEngine(MemoryTransport(), [Stray()], VirtualClock(START))


def test_a_stage_writes_only_what_the_table_says() -> None:
    class Wild(Dedup):
        def step(self, state: Any, batch: Any, now_ns: int) -> Outcome[Any]:
            return Outcome(state, (Emit("fleet.releases", event()),))

    with pytest.raises(ValueError, match="dedup writes"):
        InlineEngine(MemoryTransport(), [Wild()], VirtualClock(START)).step()


def test_contents_without_a_sink_are_refused() -> None:
    transport = MemoryTransport()
    send(transport, "fleet.clip-requests", request("c"))
    upload(transport, [request("c")], START)
    with pytest.raises(NowhereToStore, match="sink"):
        InlineEngine(transport, [Archive(str)], VirtualClock(START)).run_until_idle()


def test_a_part_of_the_flow_runs_alone_and_counts() -> None:
    transport = MemoryTransport()
    engine = InlineEngine(transport, [Dedup(), Tagging(), NoveltyStage()], VirtualClock(START))
    for e in [*events(5), *events(2)]:
        send(transport, "fleet.events", e)
    assert engine.run_until_idle() == 7 and engine.lag() == 0
    assert (engine.counts["dedup"].taken, engine.counts["dedup"].emitted) == (7, 5)
    assert len(everything(transport, "fleet.scenarios", START)) == 5


def test_what_only_time_brings_about_is_there_for_all_when_a_step_returns() -> None:
    """No record came, so no offset is committed: what a broker was sent must be seen all the same."""
    transport, clock = FarTransport(), VirtualClock(START)
    engine = engine_over(transport, clock, Sink())
    for e in events(10):
        send(transport, "fleet.events", e)
    transport.flush()
    engine.run_until_idle()
    clock.advance(WINDOW)
    assert engine.step() == 0
    assert sum(transport.end_offsets(("fleet.clip-requests",)).values()) > 0


def test_outputs_and_offsets_stay_in_one_transaction() -> None:
    """A flush ends a transaction: between outputs and the commit of their input there is none."""
    ended: list[str] = []

    class Transactions(MemoryTransport):
        def flush(self) -> None:
            ended.append("flush")

        def commit(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
            ended.append("commit")
            super().commit(group, positions)

    transport = Transactions()
    for e in events(3):
        send(transport, "fleet.events", e)
    engine = engine_over(transport, VirtualClock(START), Sink())
    assert engine.step() == 3 and ended == ["commit"]


def lanes_engine(transport: Transport, clock: VirtualClock, folder: Path | None = None) -> InlineEngine:
    stages: list[AnyStage] = [Dedup(), Tagging(), NoveltyStage(NoveltyConfig(block=4)), Selection()]
    return InlineEngine(transport, stages, clock, state_dir=folder, limit=9, by_partition=True)


def test_by_partition_each_partition_is_alone_with_its_state(tmp_path: Path) -> None:
    """One engine over all partitions says what one engine for each partition says together."""
    together, clock = MemoryTransport(), VirtualClock(START)
    for e in [*events(60), *events(20)]:
        send(together, "fleet.events", e)
    engine = lanes_engine(together, clock, tmp_path)
    while engine.lag():
        engine.step()
        together.restart("fleetwheel")
        engine = lanes_engine(together, clock, tmp_path)
    assert len(engine.lanes) > 1 and set(engine.states) == {"selection"}
    apart: list[Message] = []
    for lane in engine.lanes:
        alone = MemoryTransport()
        for e in [*events(60), *events(20)]:
            if partition_of(e.vehicle.encode(), 8) == lane:
                send(alone, "fleet.events", e)
        InlineEngine(alone, [Dedup(), Tagging(), NoveltyStage(NoveltyConfig(block=4))], clock).run_until_idle()
        apart += everything(alone, "fleet.scenarios", START)
    assert len(apart) == 60
    assert sorted(map(str, everything(together, "fleet.scenarios", START))) == sorted(map(str, apart))


def test_in_recorded_time_a_restart_goes_on_at_the_instant_of_its_state(tmp_path: Path) -> None:
    """No record came since: time has not passed, and has not gone back either."""
    seen: list[int] = []

    def now(records: Sequence[Record], last_ns: int) -> int:
        seen.append(last_ns)
        return max(last_ns, START)

    transport = MemoryTransport()
    stages: list[AnyStage] = [Dedup(), Tagging(), NoveltyStage()]
    for _ in range(2):
        InlineEngine(transport, stages, VirtualClock(0), state_dir=tmp_path, now=now).step()
    assert seen == [0, START]
