"""States and offsets in one file that is replaced as a whole: both are of the same instant, whenever one dies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from streams.contracts.ids import sha256_hex
from streams.state import StateUnreadable
from streams.transport.base import Positions


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Offsets to go on from, the stages' states by name, and the instant of both."""

    offsets: Positions
    states: dict[str, bytes]
    now_ns: int = 0


class _Stored(msgspec.Struct):
    offsets: list[tuple[str, int, int]]
    states: dict[str, bytes]
    now_ns: int = 0


_MAGIC = b"fleetwheel-state-1\n"


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Durable when it returns; a crash leaves the old file or the new one. Raises OSError."""
    offsets = sorted((topic, partition, offset) for (topic, partition), offset in snapshot.offsets.items())
    body = msgspec.msgpack.encode(_Stored(offsets, snapshot.states, snapshot.now_ns))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(_MAGIC + sha256_hex(body).encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_snapshot(path: Path) -> Snapshot | None:
    """What was written last; None where there is nothing. Raises StateUnreadable for a damaged file."""
    if not path.exists():
        return None
    data = path.read_bytes()
    head, body = data[: len(_MAGIC) + 65], data[len(_MAGIC) + 65 :]
    if head != _MAGIC + sha256_hex(body).encode() + b"\n":
        raise StateUnreadable(f"{path} is damaged: remove it, and the topics are read again from the start")
    stored = msgspec.msgpack.decode(body, type=_Stored)
    return Snapshot({(t, p): o for t, p, o in stored.offsets}, stored.states, stored.now_ns)
