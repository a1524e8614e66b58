"""The store, on the local disk and on a file system that fsspec brings (memory)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from registry.backends import write_atomically
from registry.errors import Conflict, Corrupt, Missing, Refused, Retry
from registry.store import Store, canonical_json
from streams.contracts.ids import sha256_hex


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path.as_uri() if request.param == "file" else f"memory://{uuid4().hex}/deep")


def test_content_comes_back_by_its_hash(store: Store) -> None:
    stored = store.put(b"clip")
    assert stored.sha256 == sha256_hex(b"clip")
    assert stored.bytes == 4
    assert store.get(stored.sha256) == b"clip"
    assert store.has(stored.sha256)
    assert stored.uri == store.uri(stored.sha256)


def test_the_same_content_is_one_object(store: Store) -> None:
    assert store.put(b"x") == store.put(b"x")


def test_empty_content_is_content(store: Store) -> None:
    assert store.get(store.put(b"").sha256) == b""


def test_bytes_of_another_hash_are_not_stored(store: Store) -> None:
    wanted = sha256_hex(b"right")
    with pytest.raises(Corrupt, match="nothing was stored"):
        store.put(b"wrong", wanted)
    assert not store.has(wanted)


def test_an_object_that_exists_does_not_excuse_wrong_bytes(store: Store) -> None:
    stored = store.put(b"right")
    with pytest.raises(Corrupt):
        store.put(b"wrong", stored.sha256)


def test_missing_and_removed_content(store: Store) -> None:
    name = sha256_hex(b"gone")
    with pytest.raises(Missing, match=name):
        store.get(name)
    store.put(b"gone")
    store.remove(name)
    store.remove(name)
    assert not store.has(name)


def test_more_than_asked_for_is_refused(store: Store) -> None:
    name = store.put(b"12345").sha256
    assert store.get(name, max_bytes=5) == b"12345"
    with pytest.raises(Refused, match="more than 4"):
        store.get(name, max_bytes=4)


@pytest.mark.parametrize("name", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 65, "g" * 64])
def test_only_a_sha256_names_content(store: Store, name: str) -> None:
    with pytest.raises(Refused):
        store.get(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "a\x00", "ä", "a" * 600]
)
def test_document_names_stay_inside_the_store(store: Store, name: str) -> None:
    with pytest.raises(Refused):
        store.create(name, {})


def test_documents_are_created_once_and_replaced_by_version(store: Store) -> None:
    first = store.create("models/champion", {"version": 1})
    with pytest.raises(Conflict):
        store.create("models/champion", {"version": 2})
    second = store.replace("models/champion", {"version": 2}, first.version)
    with pytest.raises(Conflict, match=second.version):
        store.replace("models/champion", {"version": 3}, first.version)
    assert store.read("models/champion") == second
    assert second.value == {"version": 2}


def test_documents_are_listed_and_missing_ones_named(store: Store) -> None:
    assert store.documents() == []
    store.create("b/two", 2)
    store.create("a", 1)
    assert store.documents() == ["a", "b/two"]
    assert store.documents("b") == ["b/two"]
    with pytest.raises(Missing, match="'c'"):
        store.read("c")
    with pytest.raises(Missing, match="'c'"):
        store.replace("c", 1, "0" * 64)


def test_a_nan_is_no_document(store: Store) -> None:
    with pytest.raises(Refused, match="JSON form"):
        store.create("a", {"x": [float("nan")]})
    assert store.documents() == []


def test_canonical_json_knows_tuples_and_refuses_objects() -> None:
    assert canonical_json({"b": (1, 2), "a": None}) == b'{"a":null,"b":[1,2]}'
    with pytest.raises(Refused):
        canonical_json(object())


def test_files_go_in_and_out_in_pieces(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "in.bin"
    source.write_bytes(bytes(range(256)) * 40_000)
    stored = store.put_file(source)
    assert stored.bytes == source.stat().st_size
    assert store.get_file(stored.sha256, tmp_path / "out" / "out.bin").read_bytes() == source.read_bytes()
    with pytest.raises(Missing, match=r"nothing\.bin"):
        store.put_file(tmp_path / "nothing.bin")


def _object(tmp_path: Path, name: str) -> Path:
    return tmp_path / "objects" / name[:2] / name


def test_changed_bytes_are_found_and_never_written_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.put(b"good").sha256
    _object(tmp_path, name).write_bytes(b"evil")
    with pytest.raises(Corrupt, match="do not use"):
        store.get(name)
    with pytest.raises(Corrupt):
        store.get_file(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cut_object_is_healed_by_the_next_put(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.put(b"good").sha256
    _object(tmp_path, name).write_bytes(b"go")
    assert store.get(store.put(b"good").sha256) == b"good"


def test_a_document_that_is_not_json_is_corrupt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create("a", 1)
    (tmp_path / "documents" / "a.json").write_bytes(b"{")
    with pytest.raises(Corrupt, match="not JSON"):
        store.read("a")


def test_a_failed_write_leaves_the_old_bytes_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, [b"old"])

    def failing() -> Iterator[bytes]:
        yield b"ne"
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_atomically(path, failing())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_medium_that_fails_asks_for_a_retry(tmp_path: Path) -> None:
    blocked = tmp_path / "objects"
    blocked.write_bytes(b"a file where a folder should be")
    with pytest.raises(Retry, match="cannot be written"):
        Store(tmp_path).put(b"x")


def _count_up(root: Path, times: int) -> None:
    store = Store(root, durable=False)
    for _ in range(times):
        while True:
            now = store.read("counter")
            try:
                store.replace("counter", now.value + 1, now.version)
                break
            except Conflict:
                continue


def test_compare_and_set_loses_no_update_between_processes(tmp_path: Path) -> None:
    Store(tmp_path).create("counter", 0)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count_up, args=(tmp_path, 40)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert Store(tmp_path).read("counter").value == 120
