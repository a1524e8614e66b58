"""A dataset in shards comes back as it was written, and nothing that is damaged is learnt from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data import BadSamples, Samples, concatenate
from model.rig import DASHCAM, THREE_CAMERAS
from model.samples_file import from_bytes, open_file, to_bytes
from model.shards import (
    MANIFEST,
    BadDataset,
    BadShard,
    Dataset,
    Shard,
    open_dataset,
    read_shard,
    write,
)
from registry.backends import LocalBackend
from registry.store import open_backend
from tests.unit.model_samples import some_samples


@pytest.fixture
def files(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "data", durable=False)


@pytest.fixture
def written(files: LocalBackend) -> Dataset:
    return write(files, [some_samples(30), some_samples(25, "other")], THREE_CAMERAS, frames=20)


def test_what_is_written_is_read_in_order_in_pieces_of_one_size(files: LocalBackend, written: Dataset) -> None:
    assert open_dataset(files) == written
    assert [shard.frames for shard in written.shards] == [20, 20, 15]
    whole = concatenate([some_samples(30), some_samples(25, "other")])
    back = concatenate([read_shard(files, shard, THREE_CAMERAS) for shard in written.shards])
    assert back.sources == ("base", "other")
    for name in ("images", "speed_mps", "yaw_rate_radps", "command", "target", "weight", "source"):
        np.testing.assert_array_equal(getattr(back, name), getattr(whole, name))
    assert sum(sum(shard.mass) for shard in written.shards) == pytest.approx(55)


@pytest.mark.parametrize("url", ["memory://shards-test/a", "file"])
def test_any_url_will_do(url: str, tmp_path: Path) -> None:
    files = open_backend(url if url != "file" else tmp_path.as_uri())
    dataset = write(files, [some_samples(5)], THREE_CAMERAS)
    assert len(read_shard(files, open_dataset(files).shards[0], dataset.rig)) == 5


def test_progress_is_told_and_little_is_held(files: LocalBackend) -> None:
    told: list[int] = []
    asked: list[int] = []

    def parts() -> Iterator[Samples]:
        for at in range(4):
            asked.append(at)
            assert sum(told[-1:]) >= 10 * at - 10
            yield some_samples(10)

    write(files, parts(), THREE_CAMERAS, frames=10, told=told.append)
    assert told == [10, 20, 30, 40]


def test_a_dataset_is_never_written_over(files: LocalBackend, written: Dataset) -> None:
    with pytest.raises(BadDataset, match="is there already"):
        write(files, [some_samples(5)], THREE_CAMERAS)


def test_an_empty_or_foreign_source_is_refused(files: LocalBackend) -> None:
    with pytest.raises(BadDataset, match="no frame"):
        write(files, [], THREE_CAMERAS)
    with pytest.raises(BadDataset, match="dashcam-1"):
        write(files, [some_samples(5)], DASHCAM)
    bad = some_samples(5)
    bad.target[3] = np.nan
    with pytest.raises(BadSamples, match="frame 3"):
        write(files, [bad], THREE_CAMERAS)
    assert files.size(MANIFEST) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-100], r"part-00001.safetensors has \d+ bytes of"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "part-00001.safetensors is damaged"),
        (lambda content: None, r"part-00001.safetensors has 0 bytes of"),
    ],
)
def test_a_half_written_damaged_or_lost_shard_is_named(
    files: LocalBackend, written: Dataset, damage: Callable[[bytes], bytes | None], said: str
) -> None:
    path = files.root / written.shards[1].name
    content = damage(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadShard, match=said):
        read_shard(files, written.shards[1], THREE_CAMERAS)


def test_a_shard_that_is_not_of_its_manifest_is_named(files: LocalBackend) -> None:
    for content, said in (
        (to_bytes(some_samples(7)), "has 7 frames, the manifest says 20"),
        (b"\xff" * 64, "not a file of samples"),
        (to_bytes(some_samples(3)).replace(b'"weight"', b'"height"'), "not a file of samples"),
    ):
        files.write("part-00000.safetensors", [content])
        shard = _described(content)
        with pytest.raises(BadShard, match=rf"part-00000.*{said}"):
            read_shard(files, shard, THREE_CAMERAS)
    shard = _described(to_bytes(some_samples(20)))
    files.write(shard.name, [to_bytes(some_samples(20))])
    with pytest.raises(BadShard, match=r"part-00000.*dashcam-1"):
        read_shard(files, shard, DASHCAM)


def _described(content: bytes) -> Shard:
    sha256 = hashlib.sha256(content).hexdigest()
    return Shard("part-00000.safetensors", 20, len(content), sha256, (1.0, 0, 0, 0, 0))


def test_a_dataset_without_its_manifest_was_not_finished(files: LocalBackend, written: Dataset) -> None:
    files.remove(MANIFEST)
    with pytest.raises(BadDataset, match="no dataset was written here to its end"):
        open_dataset(files)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        json.dumps({"format": "other/1"}).encode(),
        json.dumps({"format": "fleetwheel.shards/1", "rig": {}, "shards": []}).encode(),
        json.dumps(
            {"format": "fleetwheel.shards/1", "rig": {"name": "r", "cameras": []}, "shards": [{}]}
        ).encode(),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(files: LocalBackend, content: bytes) -> None:
    files.write(MANIFEST, [content])
    with pytest.raises(BadDataset, match=MANIFEST):
        open_dataset(files)


@pytest.mark.parametrize("change", [{"frames": 0}, {"mass": [1.0]}, {"name": "../elsewhere"}, {"extra": 1}])
def test_a_manifest_with_impossible_shards_is_refused(
    files: LocalBackend, written: Dataset, change: dict[str, object]
) -> None:
    document = json.loads((files.root / MANIFEST).read_bytes())
    document["shards"][0] |= change
    files.write(MANIFEST, [json.dumps(document).encode()])
    with pytest.raises(BadDataset, match="not the manifest"):
        open_dataset(files)


def test_a_manifest_without_frames_is_refused(files: LocalBackend, written: Dataset) -> None:
    document = json.loads((files.root / MANIFEST).read_bytes()) | {"shards": []}
    files.write(MANIFEST, [json.dumps(document).encode()])
    with pytest.raises(BadDataset, match="has no frame"):
        open_dataset(files)


def _with_header(change: Callable[[dict[str, Any]], object], more: bytes = b"") -> bytes:
    content = to_bytes(some_samples(3))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    told = json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + content[8 + length :] + more


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        (10**9).to_bytes(8, "little") + b"{}",
        (60_000).to_bytes(8, "little") + b"[" * 60_000,
        _with_header(lambda h: h["speed_mps"].update(shape=[])),
        _with_header(lambda h: h["speed_mps"].update(shape=[-1])),
        _with_header(lambda h: h["speed_mps"].update(dtype="I64")),
        _with_header(lambda h: h["command"].update(dtype="F32")),
        _with_header(lambda h: h["images"].update(data_offsets=[0, None])),
        _with_header(lambda h: h["weight"].update(data_offsets=h["speed_mps"]["data_offsets"])),
        _with_header(lambda h: h.pop("__metadata__")),
        _with_header(lambda h: h["__metadata__"].update(sources='"clip"')),
        _with_header(lambda h: h["__metadata__"].update(sources="[]")),
        _with_header(lambda h: None, b"more"),
    ],
)
def test_a_file_that_is_not_one_of_samples_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadSamples):
        from_bytes(content)
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(BadSamples, match="bad: "):
        open_file(tmp_path / "bad")


def test_samples_come_back_from_their_bytes() -> None:
    samples = some_samples(3)
    back = from_bytes(to_bytes(samples))
    np.testing.assert_array_equal(back.images, samples.images)
    assert back.sources == samples.sources
