"""A lane's past as rows of a compacted changelog: a snapshot now and then, and every step since.

Stages are pure, so a state is its snapshot and the steps taken since: which records at which instant. A step's row
is as large as its input, however large the state is; a snapshot is written when the steps since the last one weigh
more than it, so a byte of input costs about two in the changelog. Rows are overwritten, never deleted: after a
snapshot the steps take their places from the first again, and snapshots alternate between two slots, so that the
last whole one is never touched. A snapshot counts once its head row is there. It is taken when everything that
followed from the steps before was published.

Pure: rows in, rows out. An engine makes rows durable in the order given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from streams.contracts.ids import sha256_hex
from streams.state import StateUnreadable
from streams.transport.base import Positions, Record

_Value = TypeVar("_Value")
Row = tuple[bytes, bytes]
"""Key and value of a changelog record."""
CHUNK_BYTES = 900_000
"""Of a snapshot, in one row."""
PLACES = 512
"""Steps between two snapshots at most."""
LIGHT_BYTES = 256 * 1024
"""Steps that weigh less than this wait for a snapshot, however small the last one was."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was taken at one instant; steps are numbered from 1."""

    number: int
    now_ns: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """What rows tell: states as of `number`, where to go on from, and the steps since."""

    number: int = 0
    now_ns: int = 0
    positions: Positions = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class _Taken(msgspec.Struct, array_like=True):
    topic: str
    partition: int
    offset: int
    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes
    time_ns: int


class _Step(msgspec.Struct, array_like=True):
    number: int
    now_ns: int
    records: list[_Taken]


class _Head(msgspec.Struct, array_like=True):
    number: int
    now_ns: int
    slot: int
    chunks: int
    sha256: str
    positions: list[tuple[str, int, int]]


class Journal:
    """Writes a lane's rows. `step` after each step; `snapshot` where `due`."""

    def __init__(self, lane: int, number: int = 0, slot: int = 0) -> None:
        """Goes on after step `number`; `slot` holds the last whole snapshot."""
        self._lane, self.number, self._slot = lane, number, slot
        self._since, self._bytes, self._snapshot_bytes = number, 0, 0

    @property
    def due(self) -> bool:
        """Whether the next row must be a snapshot's."""
        heavy = self._bytes >= max(self._snapshot_bytes, LIGHT_BYTES)
        return heavy or self.number - self._since >= PLACES

    def step(self, records: Sequence[Record], now_ns: int) -> Row:
        """The row of the next step."""
        assert self.number - self._since < PLACES, "a snapshot is due: this row would overwrite one that is needed"
        self.number += 1
        taken = [
            _Taken(r.topic, r.partition, r.offset, r.key, list(r.headers), r.value, r.time_ns) for r in records
        ]
        value = msgspec.msgpack.encode(_Step(self.number, now_ns, taken))
        self._bytes += len(value)
        # Counted from the snapshot: heavy steps, which soon bring the next one, take few places.
        return _key(self._lane, "step", self.number - self._since - 1), value

    def snapshot(self, states: Mapping[str, bytes], positions: Positions, now_ns: int) -> list[Row]:
        """The rows of a snapshot after the last step, its head last."""
        body = msgspec.msgpack.encode(states, order="deterministic")
        pieces = [body[i : i + CHUNK_BYTES] for i in range(0, len(body), CHUNK_BYTES)]
        self._slot, self._since, self._bytes, self._snapshot_bytes = 1 - self._slot, self.number, 0, len(body)
        places = sorted((topic, partition, offset) for (topic, partition), offset in positions.items())
        head = _Head(self.number, now_ns, self._slot, len(pieces), sha256_hex(body), places)
        rows = [(_key(self._lane, f"snapshot-{self._slot}", i), piece) for i, piece in enumerate(pieces)]
        return [*rows, (_key(self._lane, "head", 0), msgspec.msgpack.encode(head))]


def read(rows: Mapping[bytes, bytes], lane: int) -> tuple[Past, Journal]:
    """What a lane's rows tell, and the journal that goes on from there. Raises StateUnreadable for rows that do
    not fit together."""
    data = rows.get(_key(lane, "head", 0))
    head = _decode(data, _Head) if data else _Head(0, 0, 0, 0, "", [])
    states = _states(rows, lane, head) if data else {}
    steps = _steps(rows, lane, head.number)
    positions = {(topic, partition): offset for topic, partition, offset in head.positions}
    past = Past(head.number, head.now_ns, positions, states, steps)
    journal = Journal(lane, head.number, head.slot)
    journal.number += len(steps)
    # The weight of what was read is not counted: the next snapshot may come a little later.
    return past, journal


def _states(rows: Mapping[bytes, bytes], lane: int, head: _Head) -> dict[str, bytes]:
    body = b"".join(rows.get(_key(lane, f"snapshot-{head.slot}", i), b"") for i in range(head.chunks))
    if sha256_hex(body) != head.sha256:
        raise StateUnreadable(_damaged(lane, f"the snapshot after step {head.number} is not whole"))
    return _decode(body, dict[str, bytes])


def _steps(rows: Mapping[bytes, bytes], lane: int, since: int) -> tuple[Step, ...]:
    """The steps after `since`; what lies in their places from before is passed over."""
    found = (_decode(rows[k], _Step) for k in (_key(lane, "step", i) for i in range(PLACES)) if k in rows)
    later = sorted((s for s in found if s.number > since), key=lambda s: s.number)
    missing = set(range(since + 1, since + 1 + len(later))) - {s.number for s in later}
    if missing:
        raise StateUnreadable(_damaged(lane, f"step {min(missing)} is missing after step {since}"))
    return tuple(Step(s.number, s.now_ns, tuple(_record(t) for t in s.records)) for s in later)


def _taken(r: Record) -> _Taken:
    return _Taken(r.topic, r.partition, r.offset, r.key, list(r.headers), r.value, r.time_ns)


def _record(t: _Taken) -> Record:
    return Record(t.topic, t.partition, t.offset, t.key, tuple(t.headers), t.value, t.time_ns)


def _decode(data: bytes, kind: type[_Value]) -> _Value:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise StateUnreadable(f"a row of the changelog cannot be read: {error}") from error


def _damaged(lane: int, what: str) -> str:
    return f"the changelog of lane {lane} is damaged: {what}; delete the topic, and its input is read again"


def _key(lane: int, kind: str, index: int) -> bytes:
    return f"{lane}/{kind}/{index}".encode()
