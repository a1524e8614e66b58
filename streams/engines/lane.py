"""A lane: stages, their states and the journal of both. No I/O: an engine carries rows, contents and records.

An engine deals with a turn in this order: store `contents`; make `rows` durable; publish `outgoing`; then take the
next. Once the row is there the decision stands, and a restart tells it again, byte for byte: readers deduplicate
by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.engines.journal import Past, Row, read
from streams.engines.round import Counts, Outgoing, Round, States
from streams.stage import AnyStage, Content
from streams.state import pack
from streams.transport.base import Record
from streams.transport.messages import after


@dataclass(frozen=True, slots=True)
class Turn:
    """What a step came to, in the order in which it must be dealt with."""

    contents: list[Content]
    rows: list[Row]
    outgoing: list[Outgoing]


class Lane:
    """One partition of stages of scope "partition", or the whole of one of scope "fleet"."""

    def __init__(
        self, number: int, stages: Sequence[AnyStage], counts: Mapping[str, Counts], rows: Mapping[bytes, bytes]
    ) -> None:
        """Goes on from these rows of its changelog, if any. Raises StateUnreadable."""
        past, self._journal = read(rows, number)
        self.number, self._stages, self._counts = number, stages, counts
        self.now_ns, self.positions = past.now_ns, past.positions
        self.states: States = {s.name: _state(s, past) for s in stages}
        self.untold: list[Outgoing] = []
        """What followed from the last step: it may have been published, or not."""
        for step in past.steps:
            self.untold = self._run(step.records, step.now_ns, {s.name: Counts() for s in stages}).outgoing()

    @property
    def steps(self) -> int:
        """How many were taken since the lane began."""
        return self._journal.number

    def fresh(self, record: Record) -> bool:
        """Whether it was not taken yet."""
        return record.offset >= self.positions.get((record.topic, record.partition), 0)

    def step(self, records: Sequence[Record], now_ns: int) -> Turn:
        """Run the stages on records that were not taken yet; on none, so that time passes."""
        rows = self.snapshot() if self._journal.due else []
        done = self._run(records, now_ns, self._counts)
        return Turn(done.contents, [*rows, self._journal.step(records, now_ns)], done.outgoing())

    def snapshot(self) -> list[Row]:
        """The states as they are, where all that followed was published: a restart has nothing to repeat."""
        dumps = {s.name: pack(self.states[s.name]) for s in self._stages}
        return self._journal.snapshot(dumps, self.positions, self.now_ns)

    def _run(self, records: Sequence[Record], now_ns: int, counts: Mapping[str, Counts]) -> Round:
        done = Round(now_ns)
        done.read(records)
        done.run(self._stages, self.states, counts)
        self.now_ns, self.positions = now_ns, self.positions | after(records)
        return done


def _state(stage: AnyStage, past: Past) -> object:
    return stage.load(past.states[stage.name]) if stage.name in past.states else stage.initial()
