"""A round: records in, stages run, records out. Pure: engines carry what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from streams.contracts.codec import Headers, Message, Rejected, decode, decode_many, encode, encode_many
from streams.stage import AnyStage, Content, Emit, Outcome, Refused, step_all
from streams.topics import BY_NAME, DEAD_LETTER, keys_of
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
        self.rejected = 0
        """Records that no stage was shown: malformed, stale, misplaced and the like. Dead letters."""
        self._streams: dict[str, list[Message]] = {}
        self._out: list[tuple[str, str, list[Message]]] = []
        self._dead: list[tuple[Record, str, str]] = []
        self._read: list[tuple[list[Message | None], Callable[[int], Record]]] = []

    def read(self, records: Sequence[Record]) -> None:
        """Decode records onto their streams; what cannot be decoded is a dead letter."""
        topics: dict[str, list[Record]] = {}
        for record in records:
            topics.setdefault(record.topic, []).append(record)
        for topic, some in topics.items():
            self.take(topic, [r.value for r in some], some.__getitem__)

    def take(self, topic: str, values: Sequence[bytes], record_at: Callable[[int], Record]) -> None:
        """As `read`, for an engine that makes a whole record only where it is needed: of what is refused."""
        carries = BY_NAME[topic].carries
        messages = decode_many(carries, values, self.now_ns)
        for i, message in enumerate(messages):
            if message is None:
                messages[i] = self._decode(record_at(i), carries)
        self._read.append((messages, record_at))
        self._streams.setdefault(topic, []).extend(m for m in messages if m is not None)

    def adopt(self, other: Round, fused: Collection[str] = ()) -> None:
        """Take over what another round has read, and what it wrote to `fused` topics; not its dead letters."""
        self._read += other._read
        for stream, messages in other._streams.items():
            if stream in BY_NAME:
                self._streams.setdefault(stream, []).extend(messages)
        for topic, _, messages in other._out:
            if topic in fused:
                self._streams.setdefault(topic, []).extend(messages)

    def run(
        self, stages: Iterable[AnyStage], states: MutableMapping[str, Any], counts: Mapping[str, Counts]
    ) -> None:
        """Step each stage, in the given order; `states` are replaced by those after it.

        Raises ValueError for a stage that writes where the topology does not let it."""
        run_all([self], stages, [states], counts)

    def waiting(self, stage: str) -> list[Message]:
        """What the stage reads."""
        streams = [self._streams.get(stream, []) for stream in BY_STAGE[stage].reads]
        return streams[0] if len(streams) == 1 else [m for stream in streams for m in stream]

    def put(self, stage: str, outcome: Outcome[Any]) -> None:
        """What came of the stage's step. Raises ValueError where the topology does not let it write."""
        self._take(stage, outcome.emits, outcome.refused)
        self.contents += outcome.contents

    @property
    def silent(self) -> bool:
        """Whether nothing leaves."""
        return not (self._out or self._dead or self.contents)

    def outgoing(self) -> list[Outgoing]:
        """Everything that leaves, in the order in which it came about; dead letters last."""
        out: list[Outgoing] = []
        for topic, source, messages in self._out:
            keys = keys_of(BY_NAME[topic], messages)
            out += [(topic, key, *told) for key, told in zip(keys, encode_many(messages, source), strict=True)]
        for record, reason, detail in self._dead:
            headers, value = encode_letter(record, reason, detail, self.now_ns)
            out.append((DEAD_LETTER, record.topic.encode(), headers, value))
        return out

    def _decode(self, record: Record, carries: tuple[type[Message], ...]) -> Message | None:
        """The message of one record; None, and a dead letter, where there is none."""
        try:
            message = decode(record.headers, record.value, self.now_ns)
        except Rejected as error:
            self._refuse(record, error.reason, error.detail)
            return None
        if isinstance(message, carries):
            return message
        detail = f"{type(message).__name__} does not belong into {record.topic}"
        self._refuse(record, "misplaced", detail)
        return None

    def _refuse(self, record: Record, reason: str, detail: str) -> None:
        self.rejected += 1
        self._dead.append((record, reason, detail))

    def _take(self, stage: str, emits: Sequence[Emit], refused: Sequence[Refused]) -> None:
        """Edges stay in the process, topics go out."""
        allowed = BY_STAGE[stage].writes
        for stream in dict.fromkeys([e.stream for e in emits]):
            messages = [e.message for e in emits if e.stream == stream]
            if stream not in allowed:
                raise ValueError(f"{stage} writes {allowed}, not {stream!r}")
            if stream in BY_NAME:
                self._out.append((stream, f"fleetwheel/{stage}", messages))
            else:
                self._streams.setdefault(stream, []).extend(messages)
        if refused:
            origin = self._origin()
            self._dead += [(_record_of(r.message, origin), r.reason, f"{stage}: {r.detail}") for r in refused]

    def _origin(self) -> dict[int, Callable[[], Record]]:
        """By the identity of a message, how to get the record that it came in."""
        return {
            id(m): partial(record_at, i)
            for messages, record_at in self._read
            for i, m in enumerate(messages)
            if m is not None
        }


def run_all(
    rounds: Sequence[Round],
    stages: Iterable[AnyStage],
    states: Sequence[MutableMapping[str, Any]],
    counts: Mapping[str, Counts],
) -> None:
    """`Round.run` in several lanes at one instant, stage by stage."""
    for stage in stages:
        batches = [round_.waiting(stage.name) for round_ in rounds]
        outcomes = step_all(stage, [s[stage.name] for s in states], batches, rounds[0].now_ns)
        count = counts[stage.name]
        for round_, state, batch, outcome in zip(rounds, states, batches, outcomes, strict=True):
            state[stage.name] = outcome.state
            round_.put(stage.name, outcome)
            count.taken += len(batch)
            count.emitted += len(outcome.emits)
            count.refused += len(outcome.refused)


def _record_of(message: Message, origin: Mapping[int, Callable[[], Record]]) -> Record:
    """The record that a message came in; one that waited in a stage's state is written anew."""
    if id(message) in origin:
        return origin[id(message)]()
    headers, value = encode(message)
    topic = next(t for t in BY_NAME.values() if isinstance(message, t.carries))
    return Record(topic.name, 0, 0, keys_of(topic, [message])[0], headers, value)


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
