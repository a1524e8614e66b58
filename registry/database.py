"""SQLite as the registry uses it: one connection, write-ahead log, short transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from registry.errors import Corrupt, Retry

BUSY_MS = 30_000


class Database:
    """A SQLite file shared by threads and processes.

    Calls block while another process writes, at most BUSY_MS, then raise Retry. A file that is no database
    raises Corrupt.
    """

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with self._translated():
            self._connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            for statement in filter(str.strip, schema.split(";")):
                self._connection.execute(statement)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """All rows of a query."""
        with self._lock, self._translated():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing of it; readers see it whole."""
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Retry(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"{self._path}: {error}") from error
