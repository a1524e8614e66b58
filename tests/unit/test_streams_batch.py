"""The batch engine's pure parts: rows of the changelog, and units that stand again where they stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import encode
from streams.contracts.drive import TriggerEvent
from streams.dedup import Dedup
from streams.engines.batch import engine as engine_module
from streams.engines.batch.changelog import (
    CHUNK_BYTES,
    Past,
    Row,
    Step,
    read_rows,
    snapshot_rows,
    step_row,
)
from streams.engines.batch.client import Commit
from streams.engines.batch.engine import BatchConfig, BatchEngine
from streams.engines.batch.unit import Batch, Flow, Taken, Unit, starts
from streams.engines.inline import InlineEngine
from streams.engines.round import Outgoing
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.state import StateUnreadable, pack
from streams.tagging import Tagging
from streams.transport.base import Position, Positions, Record, Retry
from streams.transport.kafka import KafkaConfig
from streams.transport.memory import MemoryTransport, partition_of
from streams.transport.messages import send
from tests.contract.transport import read_all
from tests.samples import T0, embedding_of, event

WINDOW = 60 * SECOND_NS
START = T0 // WINDOW * WINDOW
PLACE = ("fleet.events", 3)


def stages() -> list[AnyStage]:
    return [
        Dedup(),
        Tagging(),
        NoveltyStage(NoveltyConfig(block=4)),
        Selection(SelectionConfig(window_ns=WINDOW, clips=5)),
    ]


def events(count: int) -> list[TriggerEvent]:
    return [event(i, f"car-{i % 6}", embedding=embedding_of([i % 5 + 1, 1, i % 3 + 1])) for i in range(count)]


def records(some: Sequence[TriggerEvent]) -> list[Record]:
    """As they would lie in fleet.events."""
    ends = [0] * 8
    found: list[Record] = []
    for e in some:
        partition = partition_of(e.vehicle.encode(), 8)
        found.append(Record("fleet.events", partition, ends[partition], e.vehicle.encode(), *encode(e)))
        ends[partition] += 1
    return found


def snapshot(generation: int, states: dict[str, bytes], positions: Positions, now_ns: int) -> list[Row]:
    """Whole rows; states in two pieces each."""
    pieces = {name: [data[:7], data[7:]] for name, data in states.items()}
    return list(snapshot_rows(generation, pieces, positions, now_ns))


def batch(some: Sequence[Record]) -> Batch:
    places: dict[tuple[str, int], list[Record]] = {}
    for r in some:
        places.setdefault((r.topic, r.partition), []).append(r)
    return {
        place: Taken([r.value for r in mine], mine[0].offset, mine[-1].offset + 1, mine.__getitem__)
        for place, mine in places.items()
    }


def batches(some: Sequence[Record], size: int) -> list[Batch]:
    return [batch(some[i : i + size]) for i in range(0, len(some), size)]


def test_rows_tell_the_snapshot_and_the_steps_since() -> None:
    steps = [Step(T0 + i, {PLACE: 10 + i}) for i in range(3)]
    rows = [step_row(0, 0, steps[0])]
    assert read_rows(rows) == Past(steps=(steps[0],), number=1)
    rows += snapshot(1, {"a/1": b"x" * (2 * CHUNK_BYTES + 5), "b": b""}, {PLACE: 11}, T0 + 1)
    assert len(rows) == 1 + 3 + 1
    rows += [step_row(1, 0, steps[1]), step_row(1, 1, steps[2])]
    past = read_rows(rows)
    assert (past.now_ns, past.positions, past.steps) == (T0 + 1, {PLACE: 11}, tuple(steps[1:]))
    assert past.states == {"a/1": b"x" * (2 * CHUNK_BYTES + 5), "b": b""}
    assert read_rows([]) == Past()


def compacted(rows: Sequence[Row], upto: int) -> list[Row]:
    """What a broker may leave of the first `upto` rows: of each key the newest among them."""
    newest = {key: i for i, (key, _) in enumerate(rows[:upto])}
    return [row for i, row in enumerate(rows) if i >= upto or newest[row[0]] == i]


def test_compaction_anywhere_leaves_the_same_past() -> None:
    rows: list[Row] = []
    for n in range(3):
        rows += [step_row(n, i, Step(T0 + n, {PLACE: 100 * n + i})) for i in range(5)]
        rows += snapshot(n + 1, {"a": bytes([n]) * CHUNK_BYTES * (3 - n)}, {PLACE: 100 * n + 5}, T0 + n)
    rows += [step_row(3, i, Step(T0 + 9, {PLACE: 300 + i})) for i in range(2)]
    whole = read_rows(rows)
    assert whole.states == {"a": b"\2" * CHUNK_BYTES} and len(whole.steps) == 2
    assert (whole.generation, whole.number, whole.unfinished) == (3, 2, False)
    for upto in range(len(rows) + 1):
        assert read_rows(compacted(rows, upto)) == whole


def written_slowly(generation: int, since: int, steps: int) -> list[Row]:
    """A snapshot, a chunk with each step of its generation."""
    pieces = snapshot(generation, {"a": bytes([since]) * 2 * CHUNK_BYTES}, {PLACE: since}, T0 + since)
    rows: list[Row] = []
    for number in range(steps):
        rows += pieces[number : number + 1]
        rows.append(step_row(generation, number, Step(T0, {PLACE: since + number + 1})))
    return rows


def test_until_its_head_is_there_a_snapshot_does_not_count() -> None:
    rows = [step_row(0, number, Step(T0, {PLACE: number})) for number in range(3)]
    slow = written_slowly(1, 9, 6)
    for upto in range(len(slow) + 1):
        past = read_rows([*rows, *slow[:upto]])
        told = [one.until[PLACE] for one in past.steps]
        headed = any(key == b"head" for key, _ in slow[:upto])
        steps = sum(key.startswith(b"step") for key, _ in slow[:upto])
        assert bool(past.states) == headed
        assert told == [*([] if headed else [0, 1, 2]), *range(10, 10 + steps)]
        assert past.unfinished == (steps > 0 and not headed)


def test_a_snapshot_that_was_never_finished_leaves_room_for_the_next() -> None:
    """Compaction included: the keys of what counts are nobody else's."""
    rows = written_slowly(1, 9, 6)
    begun = written_slowly(2, 20, 2)
    again = snapshot(3, {"a": b"new"}, {PLACE: 30}, T0 + 30)
    for upto in range(len(again) + 1):
        whole = [*rows, *begun, *again[:upto]]
        for cut in range(len(whole) + 1):
            past = read_rows(compacted(whole, cut))
            if upto == len(again):
                assert (past.states, past.steps, past.unfinished) == ({"a": b"new"}, (), False)
            else:
                assert past.states == {"a": bytes([9]) * 2 * CHUNK_BYTES}
                assert [one.until[PLACE] for one in past.steps] == [*range(10, 16), 21, 22]
                assert (past.generation, past.number, past.unfinished) == (2, 2, True)


def test_damage_is_named() -> None:
    rows = snapshot(0, {"a": b"x" * 2 * CHUNK_BYTES}, {}, T0)
    with pytest.raises(StateUnreadable, match="not whole"):
        read_rows([rows[0], *rows[2:]])
    with pytest.raises(StateUnreadable, match="missing"):
        read_rows([step_row(0, 1, Step(T0, {}))])
    with pytest.raises(StateUnreadable, match="cannot be read"):
        read_rows([(b"step/0/0", b"\xc1")])
    with pytest.raises(StateUnreadable, match="dedup"):
        Unit(Flow.of(stages()), Past(states={"dedup/3": b"\xc1"}))


def test_committed_offsets_count_more_than_the_changelog() -> None:
    past = Past(positions={PLACE: 5, ("x", 0): 1}, steps=(Step(T0, {PLACE: 9}),))
    assert starts(past, {}) == {PLACE: 9, ("x", 0): 1}
    assert starts(past, {PLACE: 2}) == {PLACE: 2, ("x", 0): 1}


def outputs(unit: Unit, given: Sequence[Batch], now_ns: int = START) -> list[Outgoing]:
    found: list[Outgoing] = []
    for part in given:
        done = unit.step(part, now_ns)
        unit.accept(done, part)
        found += done.outgoing()
    return found


def test_a_unit_says_what_the_inline_engine_says_by_partition() -> None:
    """Also what selection hears of novelty inside the process, and its window's end."""
    given = [*events(90), *events(20)]
    memory, clock = MemoryTransport(), VirtualClock(START)
    engine = InlineEngine(memory, stages(), clock, by_partition=True)
    for e in given:
        send(memory, "fleet.events", e)
    engine.run_until_idle()
    clock.advance(WINDOW)
    engine.run_until_idle()
    unit = Unit(Flow.of(stages()))
    found = outputs(unit, batches(records(given), 13))
    closing = unit.step({}, START + WINDOW)
    assert not closing.silent
    found += closing.outgoing()
    for topic, count in (("fleet.scenarios", 90), ("fleet.clip-requests", 5)):
        said = [(r.key, r.headers, r.value) for r in read_all(memory, f"look-{topic}", [topic])]
        assert len(said) == count
        assert sorted(said) == sorted(o[1:] for o in found if o[0] == topic)


def packed_states(unit: Unit) -> dict[str, bytes]:
    return {name: pack(state) for name, state in unit.held().items()}


@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_unit_stands_again_where_it_stood(every: int) -> None:
    """Snapshot after some steps, the rest replayed: the same states and outputs as without a restart."""
    given = batches(records([*events(60), *events(20)]), 7)
    undisturbed, unit = Unit(Flow.of(stages())), Unit(Flow.of(stages()))
    rows: list[Row] = []
    since = 0
    for number, part in enumerate(given):
        if number % every == every - 1:
            rows, since = snapshot(0, packed_states(unit), unit.positions, unit.now_ns), number
        rows.append(step_row(0, number - since, Step(START, {p: t.until for p, t in part.items()})))
        assert outputs(unit, [part]) == outputs(undisturbed, [part])
        past = read_rows(rows)
        unit = Unit(Flow.of(stages()), past)
        assert len(past.steps) == number + 1 - since
        outputs(unit, given[since : number + 1])
        assert packed_states(unit) == packed_states(undisturbed)
        assert (unit.positions, unit.now_ns) == (undisturbed.positions, undisturbed.now_ns)


def test_a_step_that_is_not_accepted_has_not_happened() -> None:
    unit = Unit(Flow.of(stages()))
    outputs(unit, batches(records(events(20)), 20))
    before, counted = packed_states(unit), dict(unit.positions)
    unit.step(batch(records(events(40))), START + WINDOW)
    assert packed_states(unit) == before and unit.positions == counted
    assert unit.step({}, START).silent


def test_only_what_every_writer_of_is_here_is_fused() -> None:
    assert Flow.of(stages()).fused == {"fleet.scenarios"}
    assert Flow.of(stages()[:3]).fused == frozenset()
    assert Flow.of(stages()[3:]).fused == frozenset()


class Broker:
    """In a client's place: gives a batch a time, and refuses the first commit."""

    group = "g"

    def __init__(self, *_: object) -> None:
        self.consumer = self
        self.given = batches(records(events(40)), 10)
        self.commits: list[Commit] = []
        self.refusals = 1
        self.closed = False

    def places(self) -> list[Position]:
        return [("fleet.events", p) for p in range(8)]

    def take(self, _limit: int, _timeout_s: float, _gather_s: float) -> Batch:
        return self.given.pop(0)

    def commit(self, commit: Commit, _group: object) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Retry("Specified group generation id is not valid")
        self.commits.append(commit)

    def committed(self, _places: Sequence[Position]) -> dict[Position, tuple[int, int | None]]:
        return {}

    def rows(self, _partition: int, _since: int | None) -> list[Row]:
        return []

    def replay(self, _past: Past) -> list[tuple[int, Batch]]:
        return []

    def end_of_changelog(self, _partition: int) -> int:
        return 0

    def consumer_group_metadata(self) -> object:
        return None

    def assign(self, _places: object) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_an_engine_that_cannot_begin_leaves_no_client_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is dropped while it is open waits for itself for ever, the process with it."""
    clients: list[Broker] = []

    class Unreadable(Broker):
        def committed(self, _places: Sequence[Position]) -> dict[Position, tuple[int, int | None]]:
            clients.append(self)
            raise Retry("no coordinator")

    monkeypatch.setattr(engine_module, "Client", Unreadable)
    with pytest.raises(Retry, match="no coordinator"):
        BatchEngine(BatchConfig(KafkaConfig("h:1"), "g"), stages(), lambda _, last_ns: last_ns)
    assert [c.closed for c in clients] == [True]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> BatchEngine:
    monkeypatch.setattr(engine_module, "Client", Broker)
    return BatchEngine(BatchConfig(KafkaConfig("h:1"), "g"), stages(), lambda _, last_ns: max(last_ns, START))


def test_after_a_commit_that_failed_nothing_is_kept(engine: BatchEngine) -> None:
    """The states went on with the next batch meanwhile: a snapshot of them would step over what was not told."""
    engine.step()
    with pytest.raises(Retry):
        engine.step()
    engine.close()
    assert isinstance(engine._client, Broker) and engine._client.commits == []


def test_after_a_step_that_failed_nothing_is_kept(engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several units one may have accepted what the other could not."""
    assert isinstance(engine._client, Broker)
    engine._client.refusals = 0
    engine.step()

    def full(_contents: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(engine, "_store", full)
    with pytest.raises(OSError, match="No space"):
        engine.step()
    engine.close()
    assert len(engine._client.commits) == 1


def test_who_ends_in_order_keeps_a_snapshot(engine: BatchEngine) -> None:
    assert isinstance(engine._client, Broker)
    engine._client.refusals = 0
    engine.step()
    engine.close()
    assert [bool(c.outgoing) for c in engine._client.commits] == [True, False]
    assert any(key == b"head" for _, (key, _) in engine._client.commits[1].rows)


def test_who_waits_for_partitions_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, answers = BatchEngine.__new__(BatchEngine), iter(["no broker answers", ""])
    engine._units = {}
    taken: list[int] = []

    seconds = [0.0]

    def step(timeout_s: float = 0.1) -> int:
        taken.append(1 if len(taken) == 8 else 0)
        seconds[0] += 10.0 if len(taken) == 7 else 1.0
        if len(taken) == 7:  # the group has given it a partition, whose states took ten seconds to restore
            engine._units[0] = object()  # type: ignore[assignment]
        return taken[-1]

    monkeypatch.setattr(engine, "step", step)
    monkeypatch.setattr(engine, "absent", lambda: next(answers))
    monkeypatch.setattr("streams.engines.batch.engine.time.monotonic", lambda: seconds[0])
    engine.run(lambda: False, idle_s=3.0)
    assert taken == [0] * 8 + [1] + [0] * 8, "it waits for partitions, for records, and for a broker that is away"


def test_partitions_are_taken_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was given some alone hangs in its close where the broker is away."""
    engine, assigned = BatchEngine.__new__(BatchEngine), list[tuple[str, int, int]]()
    engine.config = BatchConfig(KafkaConfig("h:1", prefix="p."), "g")
    engine._units, engine._error, engine._pending = {}, None, None
    fails = {"at": 2}

    def restore(partition: int, places: Sequence[Position]) -> tuple[Any, Positions]:
        if partition == fails["at"]:
            raise Retry("away")
        return object(), {places[0]: 40 + partition}

    class Taker:
        def incremental_assign(self, partitions: list[TopicPartition]) -> None:
            assigned.extend((p.topic, p.partition, p.offset) for p in partitions)

    monkeypatch.setattr(engine, "_restore", restore)
    offered = [TopicPartition("p.fleet.events", number) for number in (2, 0, 1)]
    engine._gained(Taker(), offered)  # type: ignore[arg-type]
    assert not assigned and not engine._units
    with pytest.raises(Retry, match="away"):
        engine._raise()
    fails["at"] = -1
    engine._gained(Taker(), offered)  # type: ignore[arg-type]
    assert assigned == [("p.fleet.events", number, 40 + number) for number in (0, 1, 2)]
    assert sorted(engine._units) == [0, 1, 2]
