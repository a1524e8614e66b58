"""The batch engine: consumer batches through stages into one transaction of outputs, changelog and offsets.

Stages of scope "partition" alone: processes share a group's partitions (cooperative assignment), each partition's
states move with it. With a stage of scope "fleet": one process holds all partitions, and a younger one fences it
off. Whatever kills a process between two commits, the next one goes on from the last commit with the states of
that instant, so that readers of what is committed see each decision once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from confluent_kafka import Consumer, TopicPartition

from streams.contracts.clock import SECOND_NS
from streams.contracts.ids import sha256_hex
from streams.engines.batch.changelog import HEAD, Past, Row, Step, read_rows, snapshot_rows, step_row
from streams.engines.batch.client import Client, Commit, hint_of, positions_of
from streams.engines.batch.unit import Batch, Done, Flow, Taken, Unit, starts
from streams.engines.inline import ContentSink, NowhereToStore
from streams.engines.now import Now
from streams.engines.round import Counts, Outgoing, in_order
from streams.engines.seldom_collected import seldom_collected
from streams.stage import AnyStage, Content
from streams.state import packed
from streams.topology import BY_STAGE, topics_read
from streams.transport.base import Position, Positions, Record, Retry, TransportError
from streams.transport.kafka import OLDEST, KafkaConfig

STUCK_S = 40.0
"""No commit takes so long: the broker gives a transaction up after 15 s, the client its calls after 30."""
_MARKS_S = 10.0
"""The marks of a commit reach all partitions long before."""
TICK_NS = SECOND_NS
"""Without records time passes this often, and each time is committed: whoever counts it may say nothing."""
Assigned = Callable[[Consumer, list[TopicPartition]], None]
"""What a client calls when partitions come or go."""
RECORDS_A_ROW = 500
"""A row of a snapshot is as large as what some 250 records come to."""
ALL = -1
"""The unit of a process that holds the whole fleet."""


class NotTogether(ValueError):
    """Stages that cannot share one group: says which to run apart."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How the engine takes and keeps."""

    kafka: KafkaConfig
    group: str
    instance: str = ""
    """Name of the process among its group's: started again under it, it takes its partitions back at once. Empty:
    it joins as a new one."""
    limit: int = 16_000
    """Records of a transaction, at most."""
    gather_s: float = 0.02
    """Where little comes, records are taken no more often than this: each transaction has a cost of its own."""
    snapshot_s: float = 60.0
    snapshot_records: int = 500_000
    """A snapshot is begun after so long or so many records: what a restart must read again."""


@dataclass(slots=True)
class _Writing:
    """A snapshot on its way into the changelog, some rows with each commit."""

    rows: Iterator[Row]
    """Those that are still to be written."""
    hint: int
    """Where its generation begins."""


@dataclass(slots=True)
class _Kept:
    """A unit and its place in the changelog."""

    unit: Unit
    partition: int
    hint: int = 0
    generation: int = 0
    steps: int = 0
    """Of that generation."""
    unfinished: bool = False
    """A process before this one began its snapshot."""
    records: int = 0
    since_s: float = field(default_factory=time.monotonic)
    writing: _Writing | None = None


class BatchEngine:
    """Runs stages over Kafka. After an error make a new one: it goes on from the last commit."""

    def __init__(
        self, config: BatchConfig, stages: Iterable[AnyStage], now: Now, sink: ContentSink | None = None
    ) -> None:
        """Raises UnknownStage, NotTogether, ConnectionFailed within seconds, StateUnreadable."""
        ordered = in_order(stages)
        self.config, self._now, self._sink = config, now, sink
        self._flow = Flow.of(ordered)
        self.shared = not self._flow.whole
        self._names = tuple(s.name for s in ordered)
        topics = self._topics()
        self._units: dict[int, _Kept] = {}
        self._error: BaseException | None = None
        self._pending: Future[None] | None = None
        self._closing = False
        self.taken = 0
        self.rejected = 0
        """Of the records taken, those that no stage was shown: dead letters."""
        self._client = Client(self._kafka(), config.group, topics, config.instance if self.shared else "")
        try:
            self._begin()
        except BaseException:
            self.close()  # a consumer that is dropped while it is open waits for itself, for ever
            raise

    @property
    def counts(self) -> dict[str, Counts]:
        """What each stage did."""
        return self._flow.counts

    @property
    def partitions(self) -> list[int]:
        """Partitions whose states are here; [-1] where the whole fleet's are."""
        return sorted(self._units)

    def absent(self) -> str:
        """That no broker answers, where none does within a second; else "". For when nothing comes."""
        return self._client.absent()

    def step(self, timeout_s: float = 0.1) -> int:
        """Take what is there, at most the limit; the number of records. What it came to is committed while the
        next batch is being worked on, in order. Raises Retry, Fenced and other TransportErrors, and what the sink
        raises; then close, and make a new engine."""
        try:
            return self._step(timeout_s)
        except BaseException:
            self._units.clear()  # they may be ahead of the last commit: nothing of them may be kept
            raise

    def _step(self, timeout_s: float) -> int:
        batch = self._client.take(self.config.limit, timeout_s, self.config.gather_s)
        self._raise()
        outgoing: list[tuple[int, list[Outgoing]]] = []
        rows: list[tuple[int, Row]] = []
        offsets: dict[Position, tuple[int, int]] = {}
        rejected = 0
        for key, part in self._split(batch):
            kept = self._units[key]
            now_ns = self._now(_Records(part), kept.unit.now_ns)
            if not part and now_ns - kept.unit.now_ns < TICK_NS:
                continue
            done = kept.unit.step(part, now_ns)
            if done.silent and not part and self.shared:
                continue  # stages of scope "partition" have no timers: what they did not say has not happened
            self._store(done.contents)
            rows += self._rows(kept, done, part)
            kept.unit.accept(done, part)
            rejected += done.rejected
            outgoing.append((done.now_ns, done.outgoing()))
            offsets |= {place: (taken.until, kept.hint) for place, taken in part.items()}
        self._commit(Commit(outgoing, rows, offsets))
        number = sum(len(taken) for taken in batch.values())
        self.taken += number
        self.rejected += rejected
        return number

    def run(self, stop: Callable[[], bool], idle_s: float | None = None) -> None:
        """Step until told to stop, or until a broker that answers sent nothing for `idle_s`."""
        heard_s = time.monotonic()
        with seldom_collected():
            while not stop():
                held = bool(self._units)
                # Who waits for partitions, and restores what they had, is not idle: that may take longer.
                if self.step() or not held:
                    heard_s = time.monotonic()
                elif idle_s is not None and time.monotonic() - heard_s > idle_s:
                    if not self.absent():
                        break
                    heard_s = time.monotonic()  # who hears nothing knows nothing

    def close(self) -> None:
        """Finish what was begun, keep a snapshot, leave the group. Errors on the way leave it to the changelog."""
        try:
            self._keep(list(self._units))
        except (TransportError, OSError):
            pass  # the last commit stands, and a restart goes on from it
        finally:
            self._units.clear()
            self._closing = True
            self._client.close()

    # --- what belongs together

    def _topics(self) -> tuple[str, ...]:
        topics = topics_read(self._names)
        if self.shared:
            if len(topics) > 1:
                read = {s: BY_STAGE[s].reads for s in self._names}
                raise NotTogether(f"{topics} are assigned apart; run the readers of each in a group: {read}")
            return topics
        return tuple(t for t in topics if t not in self._flow.fused)

    def _kafka(self) -> KafkaConfig:
        """With the transactional id: the group's where one process holds all, else the process's own."""
        config = self.config
        name = config.instance or sha256_hex(f"{time.time_ns()}/{id(self)}".encode())[:16]
        return replace(config.kafka, transactional_id=f"{config.group}-{name}" if self.shared else config.group)

    def _split(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """Batches by unit; an empty one where nothing came, so that time passes."""
        for key, kept in sorted(self._units.items()):
            part = {p: t for p, t in batch.items() if key in (ALL, p[1])}
            early = {p: t.first for p, t in part.items() if t.first < kept.unit.positions.get(p, 0)}
            if early:
                raise Retry(f"{early} was taken already: the assignment changed in between")
            yield key, part

    # --- the changelog

    def _rows(self, kept: _Kept, done: Done, part: Batch) -> list[tuple[int, Row]]:
        """Some of a snapshot of what stood, begun where it is due, and the step that follows."""
        if kept.unfinished:
            rows = self._snapshot(kept)
        else:
            if kept.writing is None and self._due(kept):
                kept.writing = self._begin_snapshot(kept)
            rows = self._some_of_it(kept, sum(len(taken) for taken in part.values()))
        step = Step(done.now_ns, {place: taken.until for place, taken in part.items()})
        rows.append((kept.partition, step_row(kept.generation, kept.steps, step)))
        kept.steps += 1
        kept.records += sum(len(taken) for taken in part.values())
        return rows

    def _due(self, kept: _Kept) -> bool:
        old = time.monotonic() - kept.since_s > self.config.snapshot_s
        return bool(kept.steps) and (old or kept.records > self.config.snapshot_records)

    def _begin_snapshot(self, kept: _Kept) -> _Writing:
        """Of what stands now. It takes long to write down, and longer to send: the input goes on meanwhile."""
        # Nothing may be on its way, so that the generation's first row lies at the end or behind.
        self._settle()
        hint = self._client.end_of_changelog(kept.partition)
        kept.generation += 1
        kept.steps, kept.records, kept.since_s = 0, 0, time.monotonic()
        unit = kept.unit
        states = {name: packed(state) for name, state in unit.held().items()}
        return _Writing(snapshot_rows(kept.generation, states, dict(unit.positions), unit.now_ns), hint)

    def _some_of_it(self, kept: _Kept, records: int) -> list[tuple[int, Row]]:
        """The next rows of the snapshot that is being written, so few that they delay little what goes with them.
        With its head it counts, from this commit on."""
        writing = kept.writing
        if writing is None:
            return []
        some = list(islice(writing.rows, 1 + records // RECORDS_A_ROW))
        if some[-1][0] == HEAD:
            kept.hint, kept.writing = writing.hint, None
        return [(kept.partition, row) for row in some]

    def _snapshot(self, kept: _Kept) -> list[tuple[int, Row]]:
        """A whole one at once, in the place of one that was begun."""
        whole = self._begin_snapshot(kept)
        kept.writing, kept.unfinished, kept.hint = None, False, whole.hint
        return [(kept.partition, row) for row in whole.rows]

    def _keep(self, keys: Sequence[int]) -> None:
        """Snapshots of these units: whoever has them next need not read much again."""
        self._settle()
        some = [self._units[key] for key in keys if self._units[key].steps]
        rows = [row for kept in some for row in self._snapshot(kept)]
        offsets = {p: (o, kept.hint) for kept in some for p, o in kept.unit.positions.items()}
        self._commit(Commit([], rows, offsets))
        self._settle()

    def _restore(self, partition: int, places: Sequence[Position]) -> tuple[_Kept, dict[Position, int]]:
        """A unit as it stood at its last commit, and where its input goes on."""
        committed = self._client.committed(places)
        hint = hint_of(committed)
        past = self._past(partition, hint, positions_of(committed))
        unit = Unit(self._flow, past)
        unseen = {name: Counts() for name in self._names}
        replayed = 0
        for now_ns, batch in self._client.replay(past):
            unit.accept(unit.step(batch, now_ns, unseen), batch)
            replayed += sum(len(taken) for taken in batch.values())
        unit.positions = starts(past, positions_of(committed))
        kept = _Kept(unit, partition, hint or 0, past.generation, past.number, past.unfinished, replayed)
        return kept, unit.positions

    def _past(self, partition: int, hint: int | None, committed: Positions) -> Past:
        """The changelog, as new as the committed offsets: a transaction's marks reach one partition after another.
        Where an operator has moved the offsets forward it stays behind."""
        ends_s = time.monotonic() + _MARKS_S
        while True:
            past = read_rows(self._client.rows(partition, hint))
            behind = starts(past, {})
            if all(behind.get(p, 0) >= o for p, o in committed.items()) or time.monotonic() > ends_s:
                return past
            time.sleep(0.2)

    # --- the transaction

    def _commit(self, commit: Commit) -> None:
        self._settle()
        if commit.outgoing or commit.rows:
            group = self._client.consumer.consumer_group_metadata()
            self._pending = _aside(lambda: self._client.commit(commit, group))

    def _settle(self) -> None:
        """Wait for the commit that is under way. Raises what it raised; Retry where the client does not come back
        from it: where the broker goes away at the wrong moment it waits for ever, whatever it was told
        (librdkafka's issue 5456). Whoever comes next fences it off."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result(STUCK_S)
        except TimeoutError as error:
            self._units.clear()
            raise Retry(f"the Kafka client has not come back from a commit for {STUCK_S:.0f} s") from error
        except BaseException:
            self._units.clear()  # they are ahead of the last commit
            raise

    def _store(self, contents: Sequence[Content]) -> None:
        for content in contents:
            if self._sink is None:
                raise NowhereToStore(f"content {content.sha256} has no sink: give the engine a store")
            self._sink.put(content.data, content.sha256)

    # --- assignment

    def _begin(self) -> None:
        if self.shared:
            self._client.consumer.subscribe(
                [self.config.kafka.prefix + t for t in self._client.topics],
                on_assign=self._while_open(self._gained),
                on_revoke=self._while_open(self._revoked),
                on_lost=self._while_open(self._lost),
            )
            return
        self._units[ALL], positions = self._restore(0, self._client.places())
        self._client.consumer.assign(self._from(self._client.places(), positions))

    def _while_open(self, told: Assigned) -> Assigned:
        """A client that is being closed still tells of an assignment that nobody polled for, and then answers no
        question, for ever: left alone it assigns and gives back by itself."""

        def tell(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            if not self._closing:
                told(consumer, partitions)

        return tell

    def _gained(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        def restore() -> None:
            self._settle()
            units, positions = dict[int, _Kept](), dict[Position, int]()
            for place in self._places(partitions):
                units[place[1]], start = self._restore(place[1], [place])
                positions |= start
            # At once: a client that was given some of them alone hangs where it is closed without a broker. Where
            # none is given, as a restore failed, the binding gives it all, and what it takes is not looked at.
            consumer.incremental_assign(self._from(self._places(partitions), positions))
            self._units |= units

        self._guarded(restore)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [p for _, p in self._places(partitions) if p in self._units]
        self._guarded(lambda: self._keep(keys))
        self._drop(consumer, partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else may have them already: what is not committed never happened."""
        self._guarded(self._settle)
        self._drop(consumer, partitions)

    def _drop(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for _, partition in self._places(partitions):
            self._units.pop(partition, None)
        self._guarded(lambda: consumer.incremental_unassign(partitions))

    def _guarded(self, action: Callable[[], None]) -> None:
        """An error inside a callback of the client waits until the client has returned."""
        try:
            action()
        except Exception as error:
            self._error = self._error or error

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error if isinstance(error, TransportError | OSError | ValueError) else Retry(str(error))

    def _places(self, partitions: Iterable[TopicPartition]) -> list[Position]:
        bare = len(self.config.kafka.prefix)
        return sorted((p.topic[bare:], p.partition) for p in partitions)

    def _from(self, places: Iterable[Position], positions: dict[Position, int]) -> list[TopicPartition]:
        prefix = self.config.kafka.prefix
        return [TopicPartition(prefix + t, p, positions.get((t, p), OLDEST)) for t, p in places]


def _aside(action: Callable[[], None]) -> Future[None]:
    """Do it in a thread that nobody has to wait for, not even at the end of the process."""
    future: Future[None] = Future()

    def act() -> None:
        try:
            action()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=act, name="commit", daemon=True).start()
    return future


class _Records(Sequence[Record]):
    """All records of a batch, made only where somebody looks."""

    def __init__(self, batch: Batch) -> None:
        self._parts: list[Taken] = list(batch.values())

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(self._parts)

    def __getitem__(self, i: int) -> Record:  # type: ignore[override]  # nobody slices
        return list(self)[i]
