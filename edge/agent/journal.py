"""An append-only log of records, one per line with a checksum: what was appended survives a kill."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from edge.agent.files import write_atomic


class Journal:
    """Lines of bytes without newlines. One process at a time."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        """Opens or makes the log; a torn last line is cut off. Raises OSError."""
        self._path, self._durable = path, durable
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.records: list[bytes] = []
        self.damaged: list[bytes] = []
        """Whole lines whose checksum is wrong: not a crash but bad storage."""
        for line in whole.splitlines():
            record = _unseal(line)
            (self.damaged if record is None else self.records).append(line if record is None else record)
        if _unseal(data[len(whole) : -1]) is not None:  # a whole line but for a damaged newline: it was not torn
            self.damaged.append(data[len(whole) :])
        self._open()
        if len(whole) != len(data):
            os.ftruncate(self._descriptor, len(whole))
        self.size = len(whole)

    def append(self, records: Iterable[bytes]) -> None:
        """All of the records or, with OSError (a full disk), none."""
        data = b"".join(map(_seal, records))
        try:
            done = 0
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
            if self._durable:
                os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def replace(self, records: Iterable[bytes]) -> None:
        """Swaps the whole log for these records, in one step. Raises OSError, then the old log stands."""
        data = b"".join(map(_seal, records))
        write_atomic(self._path, data, self._durable)
        os.close(self._descriptor)
        self._open()
        self.size = len(data)

    def close(self) -> None:
        """No append after this."""
        os.close(self._descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _seal(record: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(record), record)


def _unseal(line: bytes) -> bytes | None:
    checksum, _, record = line.partition(b" ")
    return record if checksum == b"%08x" % zlib.crc32(record) else None
