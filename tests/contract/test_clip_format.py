"""The vehicle's clip writer and the registry's clip reader agree on the format."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from edge.agent.clip import encode_clip
from edge.agent.frame import Frame
from model.rig import THREE_CAMERAS, rig_from_dict
from registry.clips import read_clip
from streams.contracts.odd import SPEED, YAW_RATE

START_NS = 1_800_000_000_000_000_000
METADATA = {
    "clip_id": "clip-1",
    "vehicle": "v1",
    "kind": "disengagement",
    "rig": json.dumps(asdict(THREE_CAMERAS)),
}
CAMERAS = tuple(c.name for c in THREE_CAMERAS.cameras)


def _frames(count: int) -> tuple[Frame, ...]:
    shade = np.linspace(0, 250, 48, dtype=np.uint8)[None, :, None, None]
    return tuple(
        Frame(
            time_ns=START_NS + n * 200_000_000,
            signals={SPEED: 36.0 + n, YAW_RATE: 9.0},
            images=np.broadcast_to(
                shade // np.array([1, 2, 4], np.uint8)[:, None, None, None], (3, 48, 96, 3)
            ).copy(),
            cameras=CAMERAS,
            command=n % 4,
            engaged=n < 5,
            plan_m=np.full((8, 2), n + 0.1234),
            scale_m=np.ones((8, 2)),
            driver_plan_m=np.full((8, 2), -n) if n % 2 else None,
            driver_rule="yield" if n % 2 else "",
        )
        for n in range(count)
    )


def test_what_a_vehicle_writes_is_what_the_cloud_reads() -> None:
    frames = _frames(20)
    clip = read_clip(encode_clip(frames, METADATA), "clip-1")
    assert clip.cameras == CAMERAS
    assert clip.times_ns.tolist() == [f.time_ns for f in frames]
    for n, frame in enumerate(frames):
        assert frame.images is not None
        assert np.abs(clip.images[n].astype(int) - frame.images).max() <= 8
    np.testing.assert_allclose(clip.speed_mps * 3.6, 36 + np.arange(20), rtol=1e-6)
    np.testing.assert_allclose(clip.yaw_rate_radps, np.radians(9), rtol=1e-6)
    np.testing.assert_allclose(clip.plan_m[:, 0, 0], np.arange(20) + 0.123, atol=1e-6)
    assert np.isnan(clip.driver_m[::2]).all()
    np.testing.assert_allclose(clip.driver_m[1::2, 3, 1], -np.arange(1, 20, 2))
    assert clip.rules[:2] == ("", "yield")
    assert clip.engaged.sum() == 5
    assert clip.rig is not None
    assert rig_from_dict(clip.rig) == THREE_CAMERAS
    assert clip.metadata["kind"] == "disengagement"


def test_a_vehicle_without_cameras_for_a_moment_writes_a_clip_that_is_read() -> None:
    frames = list(_frames(6))
    frames[2] = Frame(time_ns=frames[2].time_ns, signals=frames[2].signals)
    clip = read_clip(encode_clip(tuple(frames), METADATA), "clip-1")
    assert len(clip.times_ns) == 5
