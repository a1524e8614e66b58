"""The store: content named by its sha256, and a few named JSON documents that change by compare-and-set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from registry.backends import PIECE_BYTES, Backend, LocalBackend, RemoteBackend, write_atomically
from registry.errors import Conflict, Corrupt, Missing, Refused
from streams.contracts.ids import sha256_hex

MAX_OBJECT_BYTES = 4 * 1024**3
MAX_DOCUMENT_BYTES = 16 * 1024**2

NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""What msgspec raises for bytes that are not the JSON they should be."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@=+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Stored:
    """Content in a store."""

    sha256: str
    bytes: int
    uri: str


@dataclass(frozen=True, slots=True)
class Document:
    """A named JSON value and the version (sha256 of its bytes) that a compare-and-set must name."""

    value: Any
    version: str


class Store:
    """Content-addressed objects and named documents at a URL.

    `url` is a path or a URL of fsspec: file:///…, s3://bucket/prefix, memory://…. On file:// every write is
    atomic and, with `durable`, survives a power cut; documents are true compare-and-set between processes.
    Elsewhere the creation of a document is atomic where the server knows If-None-Match, and a replacing write
    is best effort. Errors: Retry (medium), Conflict (documents), Missing, Corrupt (hash), Refused (names, sizes).
    """

    def __init__(self, url: str | Path, durable: bool = True, **options: object) -> None:
        self._backend = open_backend(str(url), durable, options)

    def put(self, data: bytes, sha256: str | None = None) -> Stored:
        """Store bytes. Where `sha256` is given and is not theirs, raises Corrupt and stores nothing."""
        return self._put([data], _expect(sha256_hex(data), sha256), len(data))

    def put_file(self, path: Path, sha256: str | None = None) -> Stored:
        """Store a file's bytes, read in pieces. Raises Missing where there is no such file, and as `put` does."""
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
                file.seek(0)
                return self._put(iter(lambda: file.read(PIECE_BYTES), b""), _expect(found, sha256), size)
        except FileNotFoundError as error:
            raise Missing(f"{path} does not exist") from error

    def _put(self, pieces: Iterable[bytes], sha256: str, size: int) -> Stored:
        key = object_key(sha256)
        if self._backend.size(key) != size:
            self._backend.write(key, verified(pieces, sha256, MAX_OBJECT_BYTES))
        return Stored(sha256, size, self._backend.uri(key))

    def get(self, sha256: str, max_bytes: int = MAX_OBJECT_BYTES) -> bytes:
        """The content of that name, its hash checked. Raises Missing, Corrupt, Refused (larger than asked)."""
        return b"".join(self.pieces(sha256, max_bytes))

    def get_file(self, sha256: str, path: Path, max_bytes: int = MAX_OBJECT_BYTES) -> Path:
        """Write the content to `path`, atomically and only if its hash holds."""
        write_atomically(path, self.pieces(sha256, max_bytes), durable=False)
        return path

    def pieces(self, sha256: str, max_bytes: int = MAX_OBJECT_BYTES) -> Iterator[bytes]:
        """The content in pieces; Corrupt comes after the last one, so keep nothing before the end."""
        return verified(self._backend.read(object_key(sha256)), sha256, max_bytes)

    def has(self, sha256: str) -> bool:
        """Whether content of that name is there."""
        return self._backend.size(object_key(sha256)) is not None

    def uri(self, sha256: str) -> str:
        """Where content of that name lies."""
        return self._backend.uri(object_key(sha256))

    def remove(self, sha256: str) -> None:
        """Erase content. Nothing happens where there is none."""
        self._backend.remove(object_key(sha256))

    def create(self, name: str, value: object) -> Document:
        """Make a document. Raises Conflict where the name is taken."""
        return self._swap(name, value, None)

    def replace(self, name: str, value: object, version: str) -> Document:
        """Change a document that still has this version, else raise Conflict; Missing where there is none."""
        present = self._document_bytes(name)
        if sha256_hex(present) != version:
            raise Conflict(f"document {name!r} is at version {sha256_hex(present)}, not {version}")
        return self._swap(name, value, present)

    def read(self, name: str) -> Document:
        """A document. Raises Missing, or Corrupt where it is not JSON."""
        data = self._document_bytes(name)
        try:
            return Document(msgspec.json.decode(data), sha256_hex(data))
        except NOT_JSON as error:
            raise Corrupt(f"document {name!r} is not JSON: {error}") from error

    def documents(self, folder: str = "") -> list[str]:
        """Names of the documents below a folder, sorted."""
        below = f"documents/{checked_name(folder)}" if folder else "documents"
        return [k.removeprefix("documents/").removesuffix(".json") for k in self._backend.keys(below)]

    def _swap(self, name: str, value: object, expected: bytes | None) -> Document:
        data = canonical_json(value)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise Refused(f"document {name!r} has {len(data)} bytes; at most {MAX_DOCUMENT_BYTES}")
        self._backend.swap(_document_key(name), data, expected)
        return Document(msgspec.json.decode(data), sha256_hex(data))

    def _document_bytes(self, name: str) -> bytes:
        key = _document_key(name)
        size = self._backend.size(key)
        if size is None:
            raise Missing(f"there is no document {name!r}")
        if size > MAX_DOCUMENT_BYTES:
            raise Corrupt(f"document {name!r} has {size} bytes; at most {MAX_DOCUMENT_BYTES}")
        return b"".join(self._backend.read(key))


def object_key(sha256: str) -> str:
    """Where content of that name lies in a store. Raises Refused for what is not a sha256."""
    if not _SHA256.fullmatch(sha256):
        raise Refused(f"{sha256[:100]!r} is not a sha256 in 64 lower-case hex digits")
    return f"objects/{sha256[:2]}/{sha256}"


def checked_name(name: str) -> str:
    """A document's name: parts of letters, digits and ._@=+- joined by "/". Raises Refused for any other."""
    if len(name) > 512 or not all(_PART.fullmatch(part) for part in name.split("/")):
        allowed = "parts of A-Za-z0-9._@=+- joined by '/', each starting with a letter or digit"
        raise Refused(f"{name[:100]!r} is not a name: {allowed}")
    return name


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes. Raises Refused for what JSON does not
    know: NaN, infinity, objects."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Refused(f"the value has no JSON form: {error}") from error


def verified(pieces: Iterable[bytes], sha256: str, max_bytes: int) -> Iterator[bytes]:
    """Pass pieces on; raise Refused beyond `max_bytes`, and Corrupt at the end where the hash is another."""
    digest, total = hashlib.sha256(), 0
    for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise Refused(f"content {sha256} has more than {max_bytes} bytes")
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise Corrupt(f"content {sha256} has sha256 {digest.hexdigest()} over {total} bytes: do not use it")


def _expect(found: str, sha256: str | None) -> str:
    if sha256 is not None and found != sha256:
        raise Corrupt(f"the bytes have sha256 {found}, not {sha256}: nothing was stored")
    return found


def _document_key(name: str) -> str:
    return f"documents/{checked_name(name)}.json"


def open_backend(url: str, durable: bool = True, options: Mapping[str, object] = {}) -> Backend:
    """Where bytes lie under a path or a URL of fsspec, as `Store` takes it."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return LocalBackend(Path(unquote(parts.path) if parts.scheme else url), durable)
    from fsspec.core import url_to_fs  # noqa: PLC0415  only where the store is not local

    # A cached listing would hide what other processes have written.
    shared: dict[str, object] = {"skip_instance_cache": True, "use_listings_cache": False}
    filesystem, root = url_to_fs(url, **(shared | dict(options)))
    return RemoteBackend(filesystem, root, parts.scheme)
