"""A stage over recorded records: what it would emit. Pure: nothing is published, stored or committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, decode
from streams.contracts.dead_letter import DeadLetter
from streams.engines.round import Counts, Round, States, by_partition, in_order, of_scope
from streams.recording import time_of
from streams.stage import AnyStage, Emit, Outcome
from streams.topics import BY_NAME
from streams.topology import BY_STAGE, TOPOLOGY
from streams.transport.base import Record

TICK_NS = 60 * SECOND_NS
"""How often time passes where nothing comes."""
LONGEST_GAP_TICKS = 10_000
BATCH_NS = SECOND_NS
"""Records of one second are one batch."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    records: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    """Records that no stage would see, by reason: malformed, stale, misplaced, ..."""
    taken: int = 0
    """Messages the stage itself got."""
    emitted: dict[str, int] = field(default_factory=dict)
    """By stream."""
    refused: dict[str, int] = field(default_factory=dict)
    """By reason."""
    contents: int = 0
    content_bytes: int = 0
    """What would be stored."""


def chain(stage: str) -> tuple[str, ...]:
    """The stage and those before it that reach it inside the process, in the topology's order."""
    wanted = {stage}
    for node in reversed(TOPOLOGY):
        edges = {s for name in wanted for s in BY_STAGE[name].reads if s not in BY_NAME}
        if edges & set(node.writes):
            wanted.add(node.stage)
    return tuple(node.stage for node in TOPOLOGY if node.stage in wanted)


class DryRun:
    """`run` it once over records in time order, then look at `report`."""

    def __init__(self, stages: Iterable[AnyStage], stage: str) -> None:
        """`stages`: those of `chain(stage)`."""
        watched = [_Watched(s) for s in in_order(stages)]
        self._stages: Sequence[AnyStage] = watched
        self._watched = next(s for s in watched if s.name == stage)
        self._in_lanes = len(of_scope(watched, "partition")) == len(watched)
        self._lanes: dict[int, States] = {}
        self._counts = {s.name: Counts() for s in watched}
        self._now_ns = 0
        self.report = Report()

    def run(self, records: Iterable[Record], settle_ns: int = 0) -> Iterator[tuple[int, Emit]]:
        """(time ns, emit) as they come about; after the last record `settle_ns` pass. The clock is that of the
        records: when the broker took them, else when it happened."""
        for _, batch in groupby(records, key=lambda r: self._time_of(r) // BATCH_NS):
            taken = list(batch)
            yield from self._pass_time(max(self._time_of(r) for r in taken))
            yield from self._step(taken)
        yield from self._pass_time(self._now_ns + settle_ns)
        yield from self._step([])

    def _pass_time(self, until_ns: int) -> Iterator[tuple[int, Emit]]:
        """Empty batches on the way: timers fire as they would have."""
        begun = self._now_ns > 0
        ticks = min((until_ns - self._now_ns) // TICK_NS, LONGEST_GAP_TICKS) if begun else 0
        for _ in range(ticks):
            self._now_ns += TICK_NS
            yield from self._step([])
        self._now_ns = max(self._now_ns, until_ns)

    def _step(self, records: Sequence[Record]) -> Iterator[tuple[int, Emit]]:
        self.report.records += len(records)
        taken = by_partition(records) if self._in_lanes else {0: list(records)}
        for lane in sorted({*self._lanes, *taken}):
            states = self._lanes.setdefault(lane, {s.name: s.initial() for s in self._stages})
            round_ = Round(self._now_ns)
            round_.read(taken.get(lane, ()))
            self._count_dead_letters(round_)  # before stages add theirs
            round_.run(self._stages, states, self._counts)
            yield from self._happened()

    def _count_dead_letters(self, round_: Round) -> None:
        for _, _, headers, value in round_.outgoing():
            letter = decode(headers, value, self._now_ns)
            assert isinstance(letter, DeadLetter)
            _count(self.report.dead_letters, letter.reason)

    def _happened(self) -> Iterator[tuple[int, Emit]]:
        outcome, report = self._watched.outcome, self.report
        report.taken = self._counts[self._watched.name].taken
        for refused in outcome.refused:
            _count(report.refused, refused.reason)
        report.contents += len(outcome.contents)
        report.content_bytes += sum(len(c.data) for c in outcome.contents)
        for emit in outcome.emits:
            _count(report.emitted, emit.stream)
            yield self._now_ns, emit

    def _time_of(self, record: Record) -> int:
        return time_of(record) or self._now_ns


class _Watched:
    """A stage whose last outcome is kept."""

    def __init__(self, stage: AnyStage) -> None:
        self.name, self._stage = stage.name, stage
        self.initial, self.load = stage.initial, stage.load
        self.outcome: Outcome[object] = Outcome(None)

    def step(self, state: object, batch: Sequence[Message], now_ns: int) -> Outcome[object]:
        self.outcome = self._stage.step(state, batch, now_ns)
        return self.outcome


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1
