"""The past of a unit of state, as rows of a compacted changelog: a snapshot now and then, and since then only
what was taken when.

Stages are pure, so states are their snapshot and the steps since: up to which offset, at which instant. A step's
row is a few dozen bytes, however large the batch or the state; a restart reads the snapshot, takes the input
again in the same cuts, and stands where the last commit stood, bit for bit. Rows lie in one transaction with the
outputs and offsets that they belong to (docs/adr/0013).

Pure: rows in, rows out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from streams.contracts.ids import sha256_hex
from streams.state import StateUnreadable
from streams.transport.base import Position, Positions

_Value = TypeVar("_Value")
Row = tuple[bytes, bytes]
"""Key and value of a changelog record."""
CHUNK_BYTES = 900_000
"""Of a snapshot, in one row: below a broker's default for a record."""
Spans = dict[Position, int]
"""Offset behind the last record that was taken, by partition; where it began is where the step before ended."""
_HEAD = b"head"


@dataclass(frozen=True, slots=True)
class Step:
    """What was taken at one instant."""

    now_ns: int
    until: Spans


@dataclass(frozen=True, slots=True)
class Past:
    """States at a snapshot, where the input went on from there, and the steps since."""

    now_ns: int = 0
    states: dict[str, bytes] = field(default_factory=dict)
    positions: Positions = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class _Step(msgspec.Struct, array_like=True):
    now_ns: int
    until: list[tuple[str, int, int]]


class _Head(msgspec.Struct, array_like=True):
    now_ns: int
    positions: list[tuple[str, int, int]]
    chunks: int
    sha256: str


def step_row(number: int, step: Step) -> Row:
    """Row of step `number` since the last snapshot, from 0: the rows before it are overwritten in time."""
    return b"step/%d" % number, msgspec.msgpack.encode(_Step(step.now_ns, _listed(step.until)))


def snapshot_rows(states: Mapping[str, bytes], positions: Positions, now_ns: int) -> list[Row]:
    """Rows of a snapshot, its head last; steps are numbered from 0 again."""
    body = msgspec.msgpack.encode(states)
    pieces = [body[i : i + CHUNK_BYTES] for i in range(0, len(body), CHUNK_BYTES)]
    head = _Head(now_ns, _listed(positions), len(pieces), sha256_hex(body))
    rows = [(b"chunk/%d" % i, piece) for i, piece in enumerate(pieces)]
    return [*rows, (_HEAD, msgspec.msgpack.encode(head))]


def read_rows(rows: Iterable[Row]) -> Past:
    """What rows tell, in the order in which they were written. Raises StateUnreadable where they do not fit
    together."""
    chunks: dict[bytes, bytes] = {}
    steps: dict[bytes, bytes] = {}
    head: bytes | None = None
    for key, value in rows:
        if key == _HEAD:
            # What came before it may be thinned out by compaction.
            head, steps = value, {}
        elif key.startswith(b"chunk/"):
            chunks[key] = value
        else:
            steps[key] = value
    if list(steps) != [b"step/%d" % i for i in range(len(steps))]:
        raise StateUnreadable(f"of {len(steps)} steps since the snapshot some are missing; {_ADVICE}")
    taken = tuple(Step(s.now_ns, _mapped(s.until)) for s in (_decoded(v, _Step) for v in steps.values()))
    if head is None:
        return Past(steps=taken)
    found = _decoded(head, _Head)
    return Past(found.now_ns, _states(found, chunks), _mapped(found.positions), taken)


def _states(head: _Head, chunks: Mapping[bytes, bytes]) -> dict[str, bytes]:
    body = b"".join(chunks.get(b"chunk/%d" % i, b"") for i in range(head.chunks))
    if sha256_hex(body) != head.sha256:
        raise StateUnreadable(f"a snapshot of {head.chunks} chunks is not whole; {_ADVICE}")
    return _decoded(body, dict[str, bytes])


_ADVICE = "delete the group's changelog topic, and its states begin anew"


def _decoded(data: bytes, kind: type[_Value]) -> _Value:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise StateUnreadable(f"a row of the changelog cannot be read: {error}; {_ADVICE}") from error


def _listed(positions: Positions) -> list[tuple[str, int, int]]:
    return sorted((topic, partition, offset) for (topic, partition), offset in positions.items())


def _mapped(positions: Iterable[tuple[str, int, int]]) -> Positions:
    return {(topic, partition): offset for topic, partition, offset in positions}
