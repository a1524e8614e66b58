"""The store on a real S3 protocol: s3fs against a moto server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from registry.backends import PIECE_BYTES
from registry.errors import Conflict, Corrupt, Missing, Retry
from registry.store import Store
from streams.contracts.ids import sha256_hex

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def url(endpoint: str) -> str:
    return f"s3://fleet-{uuid4().hex}/deep/er"


def test_content_in_many_parts_comes_back(url: str, tmp_path: Path) -> None:
    """Larger than one part of s3fs (50 MB) and written in pieces: a multipart upload."""
    source = tmp_path / "clip.mcap"
    with source.open("wb") as file:
        for number in range(8):
            file.write(bytes([number]) * (PIECE_BYTES - 1))
    stored = Store(url).put_file(source)
    again = Store(url)
    assert stored.uri.startswith(url)
    assert again.get_file(stored.sha256, tmp_path / "back").read_bytes() == source.read_bytes()
    assert again.put_file(source) == stored


def test_bytes_of_another_hash_leave_nothing(url: str) -> None:
    store = Store(url)
    with pytest.raises(Corrupt):
        store.put(b"x", sha256_hex(b"y"))
    assert not store.has(sha256_hex(b"y"))
    assert not store.has(sha256_hex(b"x"))
    with pytest.raises(Missing):
        store.get(sha256_hex(b"x"))


def test_content_can_be_removed(url: str) -> None:
    store = Store(url)
    stored = store.put(b"gone")
    store.remove(stored.sha256)
    store.remove(stored.sha256)
    assert not Store(url).has(stored.sha256)


def test_a_document_is_made_once_even_by_many(url: str) -> None:
    Store(url).put(b"the bucket is there now")

    def make(number: int) -> bool:
        try:
            Store(url).create("jobs/one", {"by": number})
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1


def test_documents_of_others_are_seen_at_once(url: str) -> None:
    mine, others = Store(url), Store(url)
    others.create("jobs/a", 1)
    assert mine.documents("jobs") == ["jobs/a"]
    made = others.create("jobs/b", 2)
    assert mine.documents("jobs") == ["jobs/a", "jobs/b"]
    assert mine.read("jobs/b").value == 2
    others.replace("jobs/b", 3, made.version)
    assert mine.read("jobs/b").value == 3
    with pytest.raises(Conflict):
        mine.replace("jobs/b", 4, made.version)


def test_the_first_write_makes_the_bucket_a_document_too(url: str) -> None:
    assert Store(url).create("first", 1).value == 1
    assert Store(url).documents() == ["first"]


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Retry, match=r"127\.0\.0\.1:9"):
        Store("s3://nowhere/x").put(b"x")
