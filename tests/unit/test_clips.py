"""The clip reader on whole, odd and damaged clips; the clip index."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zstandard
from mcap.records import Chunk
from mcap.writer import CompressionType

from registry.clip_frames import ClipLimits, _inflate
from registry.clips import ClipIndex, read_clip
from registry.errors import Conflict, Corrupt, Missing, Refused
from streams.contracts.clips import DRIVER_CHANNEL, PLAN_CHANNEL, SIGNALS_CHANNEL, ArchivedClip
from tests.unit.clip_bytes import START_NS, STEP_NS, ClipWriter, picture, points, whole_clip


@pytest.mark.parametrize("compression", list(CompressionType))
def test_a_whole_clip_becomes_arrays(compression: CompressionType) -> None:
    clip = read_clip(whole_clip(compression=compression), "clip-1")
    assert clip.images.shape == (20, 2, 8, 16, 3)
    assert clip.cameras == ("left", "front")
    assert (clip.images[:, 0, 0, 0, 0] == 2 * np.arange(20)).all()
    assert (clip.images[:, 1, -1, -1, -1] == 2 * np.arange(20) + 1).all()
    assert (clip.times_ns == START_NS + STEP_NS * np.arange(20)).all()
    np.testing.assert_allclose(clip.speed_mps, 10 + np.arange(20) / 3.6, rtol=1e-6)
    np.testing.assert_allclose(clip.yaw_rate_radps, np.pi / 2, rtol=1e-6)
    assert (clip.command == np.arange(20) % 4).all()
    assert clip.engaged.sum() == 10
    np.testing.assert_allclose(clip.plan_m[3], points(3))
    np.testing.assert_allclose(clip.driver_m[3], points(3.5))
    assert clip.rules[3] == "rule-3"
    assert clip.rig is not None
    assert clip.rig["name"] == "two"
    assert clip.clip_id == clip.metadata["clip_id"] == "clip-1"


def test_what_was_not_sent_is_nan_and_never_made_up() -> None:
    writer = ClipWriter(metadata={})
    for n in range(3):
        writer.image("dash", START_NS + n * STEP_NS, picture(n))
    clip = read_clip(writer.finish(), "some-id")
    assert clip.clip_id == "some-id"
    assert clip.rig is None
    assert np.isnan(clip.speed_mps).all()
    assert np.isnan(clip.plan_m).all()
    assert np.isnan(clip.driver_m).all()
    assert clip.plan_m.shape == (3, 8, 2)
    assert clip.rules == ("", "", "")
    assert not clip.engaged.any()


def test_channels_are_joined_by_time_within_half_a_frame() -> None:
    writer = ClipWriter(metadata={})
    for n in range(4):
        writer.image("dash", START_NS + n * STEP_NS, picture(n))
    writer.add(PLAN_CHANNEL, START_NS + STEP_NS + STEP_NS // 4, {"points_m": points(1)})
    writer.add(DRIVER_CHANNEL, START_NS + 10 * STEP_NS, {"points_m": points(9)})
    clip = read_clip(writer.finish())
    assert np.isfinite(clip.plan_m[1]).all()
    assert np.isnan(clip.plan_m[[0, 2, 3]]).all()
    assert np.isnan(clip.driver_m).all()


def test_signals_hold_until_the_next_ones_but_do_not_begin_early() -> None:
    writer = ClipWriter(metadata={})
    for n in range(5):
        writer.image("dash", START_NS + n * STEP_NS, picture(n))
    writer.add(
        SIGNALS_CHANNEL, START_NS + STEP_NS, {"signals": {"Vehicle.Speed": 18.0}, "command": 2, "engaged": True}
    )
    clip = read_clip(writer.finish())
    np.testing.assert_allclose(clip.speed_mps, [np.nan, 5, 5, 5, 5])
    assert clip.command.tolist() == [0, 2, 2, 2, 2]


def test_an_instant_that_a_camera_missed_is_no_frame() -> None:
    writer = ClipWriter()
    for n in range(6):
        writer.image("left", START_NS + n * STEP_NS, picture(n))
        if n != 3:
            writer.image("front", START_NS + n * STEP_NS, picture(n))
    clip = read_clip(writer.finish())
    assert (clip.times_ns == START_NS + STEP_NS * np.array([0, 1, 2, 4, 5])).all()
    assert clip.images[:, 1, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]


def test_messages_may_come_in_any_order() -> None:
    writer = ClipWriter(metadata={})
    for n in (2, 0, 1):
        writer.image("dash", START_NS + n * STEP_NS, picture(n))
    assert read_clip(writer.finish()).images[:, 0, 0, 0, 0].tolist() == [0, 1, 2]


def test_jpeg_and_webp_are_read_too() -> None:
    writer = ClipWriter(metadata={})
    for n, kind in enumerate(("JPEG", "WEBP")):
        writer.image("dash", START_NS + n * STEP_NS, picture(100, kind=kind))
    assert abs(read_clip(writer.finish()).images.astype(int) - 100).max() <= 3


def _clip(*, image: bytes = b"", metadata: dict[str, str] | None = None, plan: object = None) -> bytes:
    writer = ClipWriter(metadata=metadata if metadata is not None else {})
    if image:
        writer.image("dash", START_NS, image)
    if plan is not None:
        writer.add(PLAN_CHANNEL, START_NS, plan if isinstance(plan, bytes) else {"points_m": plan})
    return writer.finish()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "EndOfFile|0 bytes"),
        (b"not an mcap file at all", "byte"),
        (_clip(), "no camera channel"),
        (_clip(image=b"not an image"), "cannot identify"),
        (_clip(image=picture(1)[:-30]), "truncated|broken"),
        (_clip(image=picture(1), plan=[[1, 2]]), "1 points, not 8"),
        (_clip(image=picture(1), plan=b"{"), "byte"),
        (_clip(image=picture(1), plan=b"\xff\xfe"), "byte"),
        (_clip(image=picture(1), plan=b'{"points_m":[[1,2,3]]}'), "length 2|byte"),
        (_clip(image=picture(1), metadata={"rig": "{"}), "clip 'c'"),
        (_clip(image=picture(1), metadata={"rig": '{"cameras": 3}'}), "rig in the metadata"),
        (_clip(image=picture(1), metadata={"rig": '{"cameras": [{"name": "front"}]}'}), "no images of"),
        (_clip(image=picture(1), metadata={"clip_id": "another"}), "another"),
    ],
)
def test_a_damaged_clip_is_named_with_its_fault(data: bytes, message: str) -> None:
    with pytest.raises(Corrupt, match=message) as error:
        read_clip(data, "c")
    assert "'c'" in str(error.value)


def test_a_cut_clip_is_corrupt_wherever_it_is_cut() -> None:
    data = whole_clip(4)
    for length in range(0, len(data) - 1, 97):
        with pytest.raises(Corrupt, match="clip-1"):
            read_clip(data[:length], "clip-1")


def test_a_flipped_bit_never_changes_a_frame_in_silence() -> None:
    data = whole_clip(4)
    whole, found = read_clip(data), 0
    for at in range(0, len(data), 23):
        changed = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            clip = read_clip(changed)
        except (Corrupt, Refused):
            found += 1
            continue
        assert (clip.images == whole.images).all()
        assert (clip.plan_m == whole.plan_m).all()
        assert (clip.times_ns == whole.times_ns).all()
    assert found > 20


def test_the_place_of_the_damage_is_named() -> None:
    data = whole_clip(4)
    at = data.index(b"zstd") + 200
    with pytest.raises(Corrupt, match=r"clip 'clip-1' is damaged near byte \d+ of \d+"):
        read_clip(data[:at] + bytes(8) + data[at + 8 :], "clip-1")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ClipLimits(file_bytes=1000), "at most 1000"),
        (ClipLimits(inflated_bytes=500), "inflates"),
        (ClipLimits(messages=10), "more than 10 messages"),
        (ClipLimits(image_pixels=100), "16x8 px"),
        (ClipLimits(array_bytes=1000), "images take"),
    ],
)
def test_a_clip_beyond_the_limits_is_refused(limits: ClipLimits, message: str) -> None:
    with pytest.raises(Refused, match=message):
        read_clip(whole_clip(), "clip-1", limits)


def test_a_decompression_bomb_is_refused_before_it_grows() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(50_000_000))
    chunk = Chunk("zstd", bomb, 0, 0, 0, 50_000_000)
    with pytest.raises(Refused, match="inflates"):
        _inflate(chunk, 1_000_000)
    with pytest.raises(ValueError, match="another size"):
        _inflate(replace(chunk, uncompressed_size=100), 1_000_000)
    with pytest.raises(ValueError, match="neither"):
        _inflate(replace(chunk, compression="brotli", uncompressed_size=1), 10)


def test_a_record_that_claims_a_huge_length_is_refused_by_size() -> None:
    data = whole_clip(1)
    claims = data[:8] + b"\x01" + struct.pack("<Q", 2**60) + data[17:]
    with pytest.raises(Corrupt, match="byte"):
        read_clip(claims, "clip-1")


def archived(n: int, **changes: object) -> ArchivedClip:
    sha256 = f"{n:064x}"
    clip = ArchivedClip(
        f"clip-{n}",
        f"event-{n}",
        f"v{n % 3}",
        n,
        f"file:///{n}",
        sha256,
        10,
        "eu",
        f"cell-{n % 2}",
        "disengagement",
    )
    return msgspec.structs.replace(clip, **changes)


def test_the_index_takes_a_clip_once(tmp_path: Path) -> None:
    index = ClipIndex(tmp_path / "clips.db")
    assert index.add(archived(1))
    assert not index.add(archived(1))
    assert len(index) == 1
    assert index.get("clip-1") == archived(1)
    with pytest.raises(Conflict, match="clip-1"):
        index.add(archived(1, sha256="f" * 64))
    with pytest.raises(Missing, match="clip-2"):
        index.get("clip-2")


def test_a_batch_with_a_conflict_is_not_taken_at_all(tmp_path: Path) -> None:
    index = ClipIndex(tmp_path / "clips.db")
    index.add(archived(1))
    with pytest.raises(Conflict):
        index.add_all([archived(2), archived(1, sha256="f" * 64)])
    assert len(index) == 1


def test_the_index_finds_by_all_that_is_asked(tmp_path: Path) -> None:
    index = ClipIndex(tmp_path / "clips.db")
    assert index.add_all(archived(n) for n in reversed(range(12))) == 12
    assert [c.time_ns for c in index.find()] == list(range(12))
    assert [c.time_ns for c in index.find(cell="cell-1", vehicle="v0")] == [3, 9]
    assert [c.time_ns for c in index.find(since_ns=3, before_ns=5)] == [3, 4]
    assert len(index.find(limit=4)) == 4
    assert index.find(region="us") == []
    assert index.find(kind="' OR 1=1 --") == []


def test_the_index_is_there_after_a_restart_and_forgets_when_told(tmp_path: Path) -> None:
    index = ClipIndex(tmp_path / "clips.db")
    index.add(archived(1))
    index.close()
    again = ClipIndex(tmp_path / "clips.db")
    assert len(again) == 1
    again.remove("clip-1")
    assert len(again) == 0


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "clips.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(Corrupt, match=r"clips\.db"):
        ClipIndex(tmp_path / "clips.db")
