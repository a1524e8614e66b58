"""Where a store keeps its bytes: the local disk (atomic, locked) or any other file system fsspec knows."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from registry.errors import Conflict, Missing, Retry

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PIECE_BYTES = 8 * 1024 * 1024
"""Files are moved in pieces: an object store makes one part of one write, and parts have a size limit."""

_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "google", "azure"})
"""Packages by which fsspec's file systems speak with object stores."""


class Backend(Protocol):
    """Named bytes. Every call may block on I/O. A key is a checked relative path with "/".

    Missing keys raise Missing, a failing medium raises Retry. A reader never sees half a write.
    """

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes in pieces."""
        ...

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write, replacing what was there. Nothing changes where `pieces` raises."""
        ...

    def swap(self, key: str, data: bytes, expected: bytes | None) -> None:
        """Write only if the present bytes are `expected` (None: if there are none), else raise Conflict."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes under a key, None where there are none."""
        ...

    def remove(self, key: str) -> None:
        """Take away; nothing happens where there is nothing."""
        ...

    def keys(self, folder: str) -> list[str]:
        """All keys below a folder, sorted."""
        ...

    def uri(self, key: str) -> str:
        """Where the bytes lie, for people and tools."""
        ...


class LocalBackend:
    """file://. Writes are a temporary file, fsync, rename, fsync of the folder; swaps hold a lock as well."""

    def __init__(self, root: Path, durable: bool = True) -> None:
        self.root = root
        self._durable = durable

    def read(self, key: str) -> Iterator[bytes]:
        try:
            with (self.root / key).open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise Missing(f"{self.uri(key)} does not exist") from error
        except OSError as error:
            raise Retry(f"{self.uri(key)} cannot be read: {error}") from error

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        path = self.root / key
        try:
            write_atomically(path, pieces, self._durable)
        except OSError as error:
            raise Retry(f"{self.uri(key)} cannot be written: {error}") from error

    def swap(self, key: str, data: bytes, expected: bytes | None) -> None:
        with locked(self.root / ".locks" / f"{key.replace('/', '%')}.lock"):
            path = self.root / key
            present = path.read_bytes() if path.is_file() else None
            if present != expected:
                raise Conflict(f"{self.uri(key)} is not as expected: {_describe(present)}")
            self.write(key, [data])

    def size(self, key: str) -> int | None:
        path = self.root / key
        return path.stat().st_size if path.is_file() else None

    def remove(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def keys(self, folder: str) -> list[str]:
        found = (p for p in (self.root / folder).rglob("*") if p.is_file() and not p.name.startswith("."))
        return sorted(p.relative_to(self.root).as_posix() for p in found)

    def uri(self, key: str) -> str:
        return (self.root / key).absolute().as_uri()


class RemoteBackend:
    """Any other file system of fsspec (s3://, gs://, memory://). Creation asks for If-None-Match; a replacing
    swap is read, compare, write: safe with one writer, best effort with more."""

    def __init__(self, filesystem: AbstractFileSystem, root: str, scheme: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._scheme = scheme
        # fsspec's transaction is a state of the file system object, so threads must take turns.
        self._writing = Lock()

    def read(self, key: str) -> Iterator[bytes]:
        try:
            with self._medium(key, "read"), self._fs.open(self._path(key), "rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        except FileNotFoundError as error:
            raise Missing(f"{self.uri(key)} does not exist") from error

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        with self._medium(key, "written"):
            self._make_room(key)
            with self._writing, self._fs.transaction, self._fs.open(self._path(key), "wb") as file:
                for piece in pieces:
                    file.write(piece)

    def swap(self, key: str, data: bytes, expected: bytes | None) -> None:
        if expected is None:
            return self._create(key, data)
        present = b"".join(self.read(key)) if self.size(key) is not None else None
        if present != expected:
            raise Conflict(f"{self.uri(key)} is not as expected: {_describe(present)}")
        return self.write(key, [data])

    def _create(self, key: str, data: bytes) -> None:
        try:
            with self._medium(key, "written"):
                self._make_room(key)
                self._fs.pipe_file(self._path(key), data, mode="create")
        except FileExistsError as error:
            raise Conflict(f"{self.uri(key)} exists already") from error

    def _make_room(self, key: str) -> None:
        """The folder; on an object store the bucket alone is one."""
        self._fs.makedirs(self._path(key).rpartition("/")[0], exist_ok=True)

    def size(self, key: str) -> int | None:
        try:
            with self._medium(key, "looked up"):
                info = self._fs.info(self._path(key))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def remove(self, key: str) -> None:
        with suppress(FileNotFoundError), self._medium(key, "removed"):
            self._fs.rm_file(self._path(key))

    def keys(self, folder: str) -> list[str]:
        try:
            with self._medium(folder, "listed"):
                found = self._fs.find(self._path(folder))
        except FileNotFoundError:
            return []
        return sorted(str(p).lstrip("/").removeprefix(self._root.lstrip("/") + "/") for p in found)

    @contextmanager
    def _medium(self, key: str, what: str) -> Iterator[None]:
        """What the medium raises, as Retry; whether something exists is the caller's business."""
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            # Clients of object stores have errors of their own for a server that is away.
            if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS:
                raise Retry(f"{self.uri(key)} cannot be {what}: {error}") from error
            raise

    def uri(self, key: str) -> str:
        return f"{self._scheme}://{self._path(key).lstrip('/')}"

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def write_atomically(path: Path, pieces: Iterable[bytes], durable: bool = True, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a crash at any point, finds either the old bytes or all of the new.
    Raises OSError, and what `pieces` raises; then no trace is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:64]}.{uuid4().hex}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes and threads; the kernel frees it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _describe(present: bytes | None) -> str:
    return "nothing is there" if present is None else f"{len(present)} other bytes are there"
