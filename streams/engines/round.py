"""A round: records in, stages run, records out. Pure: engines carry what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.contracts.codec import Headers, Message, Rejected, decode, encode
from streams.stage import AnyStage, Content, Emit, Refused
from streams.topics import BY_NAME, DEAD_LETTER, key_of
from streams.topology import BY_STAGE, TOPOLOGY, Scope
from streams.transport.base import Record
from streams.transport.dead_letter import encode_letter

Outgoing = tuple[str, bytes, Headers, bytes]
"""Topic, key, headers, value."""
States = dict[str, Any]
"""By stage."""


class UnknownStage(ValueError):
    """A stage that streams/topology.py does not have."""


@dataclass(slots=True)
class Counts:
    """What a stage did since the engine began."""

    taken: int = 0
    emitted: int = 0
    refused: int = 0


class Round:
    """Read records, run stages in order, then take `outgoing` and `contents`.

    Without `records` the stages step on an empty batch, so that time passes."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.contents: list[Content] = []
        self._streams: dict[str, list[Message]] = {}
        self._out: list[tuple[str, Message, str]] = []
        self._dead: list[tuple[Record, str, str]] = []
        self._origin: dict[int, Record] = {}

    def read(self, records: Iterable[Record]) -> None:
        """Decode records onto their streams; what cannot be decoded is a dead letter."""
        for record in records:
            try:
                message = decode(record.headers, record.value, self.now_ns)
            except Rejected as error:
                self._dead.append((record, error.reason, error.detail))
                continue
            if not isinstance(message, BY_NAME[record.topic].carries):
                detail = f"{type(message).__name__} does not belong into {record.topic}"
                self._dead.append((record, "misplaced", detail))
                continue
            self._origin[id(message)] = record
            self._streams.setdefault(record.topic, []).append(message)

    def adopt(self, other: Round) -> None:
        """Take over what another round has read; it keeps its dead letters to itself."""
        self._origin |= other._origin
        for stream, messages in other._streams.items():
            if stream in BY_NAME:
                self._streams.setdefault(stream, []).extend(messages)

    def run(
        self, stages: Iterable[AnyStage], states: MutableMapping[str, Any], counts: Mapping[str, Counts]
    ) -> None:
        """Step each stage, in the given order; `states` are replaced by those after it.

        Raises ValueError for a stage that writes where the topology does not let it."""
        for stage in stages:
            batch = [m for stream in BY_STAGE[stage.name].reads for m in self._streams.get(stream, ())]
            outcome = stage.step(states[stage.name], batch, self.now_ns)
            states[stage.name] = outcome.state
            self._take(stage.name, outcome.emits, outcome.refused)
            self.contents += outcome.contents
            count = counts[stage.name]
            count.taken += len(batch)
            count.emitted += len(outcome.emits)
            count.refused += len(outcome.refused)

    def outgoing(self) -> list[Outgoing]:
        """Everything that leaves, in the order in which it came about; dead letters last."""
        out: list[Outgoing] = []
        for topic, message, stage in self._out:
            headers, value = encode(message, f"fleetwheel/{stage}")
            out.append((topic, key_of(BY_NAME[topic], message).encode(), headers, value))
        for record, reason, detail in self._dead:
            headers, value = encode_letter(record, reason, detail, self.now_ns)
            out.append((DEAD_LETTER, record.topic.encode(), headers, value))
        return out

    def _take(self, stage: str, emits: Sequence[Emit], refused: Sequence[Refused]) -> None:
        """Edges stay in the process, topics go out."""
        allowed = BY_STAGE[stage].writes
        for emit in emits:
            if emit.stream not in allowed:
                raise ValueError(f"{stage} writes {allowed}, not {emit.stream!r}")
            if emit.stream in BY_NAME:
                self._out.append((emit.stream, emit.message, stage))
            else:
                self._streams.setdefault(emit.stream, []).append(emit.message)
        self._dead += [(self._record_of(r.message), r.reason, f"{stage}: {r.detail}") for r in refused]

    def _record_of(self, message: Message) -> Record:
        """The record that a message came in; one that waited in a stage's state is written anew."""
        known = self._origin.get(id(message))
        if known is not None:
            return known
        headers, value = encode(message)
        topic = next(t for t in BY_NAME.values() if isinstance(message, t.carries))
        return Record(topic.name, 0, 0, key_of(topic, message).encode(), headers, value)


def in_order(stages: Iterable[AnyStage]) -> list[AnyStage]:
    """The stages in the topology's order. Raises UnknownStage."""
    named = {stage.name: stage for stage in stages}
    unknown = sorted(set(named) - set(BY_STAGE))
    if unknown:
        raise UnknownStage(f"stages {unknown} are not in streams/topology.py: {sorted(BY_STAGE)}")
    return [named[node.stage] for node in TOPOLOGY if node.stage in named]


def of_scope(stages: Iterable[AnyStage], scope: Scope) -> list[AnyStage]:
    """Those whose state lives there, in the order given."""
    return [s for s in stages if BY_STAGE[s.name].scope == scope]


def by_partition(records: Iterable[Record]) -> dict[int, list[Record]]:
    """Records by the number of their partition, lowest first."""
    lanes: dict[int, list[Record]] = {}
    for record in records:
        lanes.setdefault(record.partition, []).append(record)
    return dict(sorted(lanes.items()))
