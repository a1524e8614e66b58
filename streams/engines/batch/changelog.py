"""The past of a unit of state, as rows of a compacted changelog: a snapshot now and then, and since then only
what was taken when.

Stages are pure, so states are their snapshot and the steps since: up to which offset, at which instant. A step's
row is a few dozen bytes, however large the batch or the state; a restart reads the snapshot, takes the input
again in the same cuts, and stands where the last commit stood, bit for bit. Rows lie in one transaction with the
outputs and offsets that they belong to (docs/adr/0013).

A snapshot may be written over many transactions while the input goes on: steps since its instant belong to its
generation, and its head, written last, makes it count. Until then the one before counts, and the steps of both
generations. Generations are numbered; the keys of three take turns, so that compaction takes nothing away that
still counts, and what it leaves of earlier ones is told by its number.

Pure: rows in, rows out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TypeVar

import msgspec

from streams.contracts.ids import sha256_hex
from streams.state import StateUnreadable
from streams.transport.base import Position, Positions

_Value = TypeVar("_Value")
Row = tuple[bytes, bytes]
"""Key and value of a changelog record."""
CHUNK_BYTES = 250_000
"""Of a snapshot, in one row: written and sent in milliseconds, so that it delays little what goes with it."""
Spans = dict[Position, int]
"""Offset behind the last record that was taken, by partition; where it began is where the step before ended."""
TURNS = 3
"""Of generations: the one that counts, one that is being written, one to begin anew with where it never was."""
HEAD = b"head"
"""Key of a snapshot's last row, with which it counts."""


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
    generation: int = 0
    """Of the newest rows."""
    number: int = 0
    """Steps of that generation."""
    unfinished: bool = False
    """Whether its snapshot was begun and has no head."""


class _Step(msgspec.Struct, array_like=True):
    now_ns: int
    until: list[tuple[str, int, int]]
    generation: int
    number: int


class _Head(msgspec.Struct, array_like=True):
    now_ns: int
    positions: list[tuple[str, int, int]]
    chunks: int
    sha256: str
    generation: int
    states: list[tuple[str, int]]
    """Name and bytes of each, one behind the other."""


def step_row(generation: int, number: int, step: Step) -> Row:
    """Row of step `number` since the generation's instant, from 0: what had its key is overwritten in time."""
    row = _Step(step.now_ns, _listed(step.until), generation, number)
    return b"step/%d/%d" % (generation % TURNS, number), msgspec.msgpack.encode(row)


def snapshot_rows(
    generation: int, states: Mapping[str, Iterable[bytes]], positions: Positions, now_ns: int
) -> Iterator[Row]:
    """Rows of a snapshot, its head last, each made when it is asked for; steps since then are of its generation,
    numbered from 0. States are given in pieces of any size."""
    digest, sizes, number, rest = hashlib.sha256(), dict.fromkeys(states, 0), 0, bytearray()
    for name, pieces in states.items():
        for piece in pieces:
            sizes[name] += len(piece)
            rest += piece
            while len(rest) >= CHUNK_BYTES:
                yield _chunk(generation, number, rest[:CHUNK_BYTES], digest)
                del rest[:CHUNK_BYTES]
                number += 1
    if rest:
        yield _chunk(generation, number, rest, digest)
        number += 1
    head = _Head(now_ns, _listed(positions), number, digest.hexdigest(), generation, list(sizes.items()))
    yield HEAD, msgspec.msgpack.encode(head)


def _chunk(generation: int, number: int, data: bytearray, digest: hashlib._Hash) -> Row:
    digest.update(data)
    return b"chunk/%d/%d" % (generation % TURNS, number), bytes(data)


def read_rows(rows: Iterable[Row]) -> Past:
    """What rows tell, in the order in which they were written. Raises StateUnreadable where they do not fit
    together."""
    chunks: dict[bytes, bytes] = {}
    steps: dict[int, list[_Step]] = {}
    head: _Head | None = None
    for key, value in rows:
        if key == HEAD:
            head = _decoded(value, _Head)
            # What came before its instant may be thinned out by compaction.
            steps = {number: some for number, some in steps.items() if number >= head.generation}
        elif key.startswith(b"chunk/"):
            chunks[key] = value
        else:
            step = _decoded(value, _Step)
            if head is None or step.generation >= head.generation:
                steps.setdefault(step.generation, []).append(step)
    for some in steps.values():
        if [step.number for step in some] != list(range(len(some))):
            raise StateUnreadable(f"of {len(some)} steps since the snapshot some are missing; {_ADVICE}")
    taken = tuple(Step(step.now_ns, _mapped(step.until)) for some in steps.values() for step in some)
    counts = 0 if head is None else head.generation
    newest = max(steps, default=counts)
    past = Past(0, {}, {}, taken, newest, len(steps.get(newest, [])), newest != counts)
    if head is None:
        return past
    return replace(past, now_ns=head.now_ns, states=_states(head, chunks), positions=_mapped(head.positions))


def _states(head: _Head, chunks: Mapping[bytes, bytes]) -> dict[str, bytes]:
    body = b"".join(chunks.get(b"chunk/%d/%d" % (head.generation % TURNS, i), b"") for i in range(head.chunks))
    ends = list(accumulate((size for _, size in head.states), initial=0))
    if sha256_hex(body) != head.sha256 or ends[-1] != len(body):
        raise StateUnreadable(f"a snapshot of {head.chunks} chunks is not whole; {_ADVICE}")
    return {name: body[start : start + size] for start, (name, size) in zip(ends, head.states, strict=False)}


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
