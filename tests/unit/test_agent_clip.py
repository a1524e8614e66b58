"""Clips as MCAP, read back by the mcap library and by our own reader."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from PIL import Image

from edge.agent.clip import encode_clip
from edge.sources.source import rig_json
from model.rig import THREE_CAMERAS
from registry.clip_frames import read_clip
from registry.errors import Corrupt
from streams.contracts.clips import CLIP_METADATA, CLIP_SCHEMAS
from tests.unit.vehicle_frames import CAMERAS, START_NS, frame, pictures, seen

METADATA = {"clip_id": "c1", "event_id": "c1", "kind": "hard_brake", "rig": rig_json(THREE_CAMERAS)}


@pytest.fixture(scope="module")
def clip() -> bytes:
    return encode_clip(tuple(seen(i) for i in range(20)), METADATA)


def messages(data: bytes, topic: str) -> list[tuple[int, dict[str, Any]]]:
    reader = make_reader(io.BytesIO(data), validate_crcs=True)
    return [(m.log_time, json.loads(m.data)) for _, _, m in reader.iter_messages(topics=[topic])]


def test_channels_and_schemas_are_the_contract(clip: bytes) -> None:
    summary = make_reader(io.BytesIO(clip)).get_summary()
    assert summary is not None and summary.statistics is not None
    found = {c.topic: summary.schemas[c.schema_id].name for c in summary.channels.values()}
    cameras = {f"/camera/{name}": "foxglove.CompressedImage" for name in CAMERAS}
    expected = cameras | {topic: CLIP_SCHEMAS[topic][0] for topic in ("/signals", "/policy/plan", "/driver/plan")}
    assert found == expected
    assert summary.statistics.message_count == 20 * 6
    assert all(c.compression == "zstd" for c in summary.chunk_indexes)
    assert all(s.encoding == "jsonschema" for s in summary.schemas.values())


def test_images_are_jpegs_of_the_right_camera_and_instant(clip: bytes) -> None:
    for camera, name in enumerate(CAMERAS):
        found = messages(clip, f"/camera/{name}")
        assert len(found) == 20
        time_ns, message = found[7]
        assert time_ns == START_NS + 7 * 200_000_000
        assert message["timestamp"] == {"sec": time_ns // 10**9, "nsec": time_ns % 10**9}
        assert (message["frame_id"], message["format"]) == (name, "jpeg")
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(message["data"]))))
        assert np.abs(image.astype(int) - pictures(7)[camera]).mean() < 4


def test_signals_and_plans(clip: bytes) -> None:
    assert messages(clip, "/signals")[3][1] == {
        "signals": dict(seen(3).signals),
        "command": 0,
        "engaged": True,
    }
    plan = messages(clip, "/policy/plan")[3][1]
    assert plan["model_version"] == "m1" and len(plan["points_m"]) == len(plan["scale_m"]) == 8
    assert plan["points_m"][0] == [3.0, 0.0]
    assert messages(clip, "/driver/plan")[3][1]["rule"] == "stop at sign"


def test_metadata(clip: bytes) -> None:
    found = [m for m in make_reader(io.BytesIO(clip)).iter_metadata() if m.name == CLIP_METADATA]
    assert [m.metadata for m in found] == [METADATA]


def test_equal_input_gives_equal_bytes(clip: bytes) -> None:
    again = encode_clip(tuple(seen(i) for i in range(20)), dict(reversed(METADATA.items())))
    assert again == clip
    assert encode_clip(tuple(seen(i) for i in range(1, 21)), METADATA) != clip


def test_our_reader_gets_the_same_back(clip: bytes) -> None:
    frames = read_clip(clip, "c1")
    assert frames.cameras == CAMERAS and frames.images.shape == (20, 3, 48, 96, 3)
    assert np.abs(frames.images[11].astype(int) - pictures(11)).mean() < 4
    assert frames.plan_m[4] == pytest.approx(seen(4).plan_m, abs=6e-4)
    assert frames.driver_m[4] == pytest.approx(seen(4).driver_plan_m, abs=6e-4)
    assert frames.speed_mps == pytest.approx(np.full(20, 10.0))
    assert frames.rules == ("stop at sign",) * 20
    assert frames.engaged.all()


def test_a_clip_without_images_or_plans_holds_the_signals_alone() -> None:
    data = encode_clip(tuple(frame(i, plan_m=None, scale_m=None) for i in range(3)), {})
    summary = make_reader(io.BytesIO(data)).get_summary()
    assert summary is not None
    assert [c.topic for c in summary.channels.values()] == ["/signals"]


def test_a_flipped_bit_outside_the_chunks_is_noticed(clip: bytes) -> None:
    at = clip.index(b"hard_brake")
    damaged = clip[:at] + bytes([clip[at] ^ 1]) + clip[at + 1 :]
    with pytest.raises(Corrupt, match="damaged"):
        read_clip(damaged, "c1")


def test_an_empty_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        encode_clip((), {})


@pytest.mark.skipif(shutil.which("mcap") is None, reason="the mcap command line is not installed")
def test_the_mcap_command_line_finds_nothing_wrong(clip: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mcap"
    path.write_bytes(clip)
    result = subprocess.run(["mcap", "doctor", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
