"""The clip index: which clips are archived, and where. Their frames are read by clip_frames.py."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from registry.clip_frames import ClipFrames, ClipLimits, read_clip
from registry.database import Database
from registry.errors import Conflict, Missing
from streams.contracts.clips import ArchivedClip

__all__ = ["ClipFrames", "ClipIndex", "ClipLimits", "read_clip"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS clips (
    clip_id TEXT PRIMARY KEY, vehicle TEXT NOT NULL, region TEXT NOT NULL, cell TEXT NOT NULL, kind TEXT NOT NULL,
    time_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, record BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS clips_by_cell ON clips (cell, time_ns);
CREATE INDEX IF NOT EXISTS clips_by_vehicle ON clips (vehicle, time_ns);
CREATE INDEX IF NOT EXISTS clips_by_time ON clips (time_ns, clip_id)
"""


class ClipIndex:
    """ArchivedClip records in a SQLite file. Raises Retry (busy), Corrupt (file), Conflict, Missing."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def add(self, clip: ArchivedClip) -> bool:
        """Take a record; False where it was there already. Raises Conflict for the same id with other content."""
        return self.add_all([clip]) == 1

    def add_all(self, clips: Iterable[ArchivedClip]) -> int:
        """Take records, all or none; the number of new ones. Raises Conflict as `add` does."""
        added = 0
        with self._database.transaction() as connection:
            for clip in clips:
                row = connection.execute("SELECT sha256 FROM clips WHERE clip_id = ?", (clip.clip_id,)).fetchone()
                if row is not None and row[0] != clip.sha256:
                    raise Conflict(f"clip {clip.clip_id} is indexed with content {row[0]}, not {clip.sha256}")
                if row is None:
                    connection.execute("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _row(clip))
                    added += 1
        return added

    def get(self, clip_id: str) -> ArchivedClip:
        """One record. Raises Missing."""
        rows = self._database.rows("SELECT record FROM clips WHERE clip_id = ?", (clip_id,))
        if not rows:
            raise Missing(f"clip {clip_id!r} is not in the index")
        return _decode(rows[0])

    def find(
        self,
        *,
        vehicle: str | None = None,
        region: str | None = None,
        cell: str | None = None,
        kind: str | None = None,
        since_ns: int = 0,
        before_ns: int = 2**63 - 1,
        limit: int = 100_000,
    ) -> list[ArchivedClip]:
        """Records that match all that is given, by time and then id."""
        wanted = {"vehicle": vehicle, "region": region, "cell": cell, "kind": kind}
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(["time_ns >= ?", "time_ns < ?", *(f"{column} = ?" for column in given)])
        query = f"SELECT record FROM clips WHERE {where} ORDER BY time_ns, clip_id LIMIT ?"  # noqa: S608  own names
        return [_decode(r) for r in self._database.rows(query, (since_ns, before_ns, *given.values(), limit))]

    def remove(self, clip_id: str) -> None:
        """Forget a clip. Nothing happens where there is none."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM clips WHERE clip_id = ?", (clip_id,))

    def __len__(self) -> int:
        return int(str(self._database.rows("SELECT COUNT(*) FROM clips")[0][0]))

    def close(self) -> None:
        """Let the file go."""
        self._database.close()


def _row(clip: ArchivedClip) -> tuple[object, ...]:
    record = msgspec.json.encode(clip)
    return (clip.clip_id, clip.vehicle, clip.region, clip.cell, clip.kind, clip.time_ns, clip.sha256, record)


def _decode(row: tuple[object, ...]) -> ArchivedClip:
    record = row[0]
    assert isinstance(record, bytes)
    return msgspec.json.decode(record, type=ArchivedClip)
