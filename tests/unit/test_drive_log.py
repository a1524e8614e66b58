"""The agent over recorded drives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.drive_log import open_drive, run_drive
from edge.runtimes.onnx import OnnxPolicy
from edge.sources.source import BadSource
from model.policy import Observation, Plan, Policy
from model.rig import Rig
from registry.clip_frames import read_clip
from streams.contracts.drive import Telemetry, Trigger, TriggerEvent
from tests.unit.test_sources import SHARED, real_segment
from tests.unit.vehicle_policy import straight_on
from tests.unit.vehicle_segment import segment
from tests.unit.vehicle_video import video


def policy_for(rig: Rig) -> Policy:
    return OnnxPolicy(straight_on(), rig)


def test_a_segment_that_brakes_hard(tmp_path: Path) -> None:
    summary = run_drive(open_drive(segment(tmp_path / "r/40", brake_at_s=5.0)), policy_for, tmp_path / "out")
    assert summary.hard_brakes == 1 and summary.events["hard_brake"] == 1
    assert summary.frames == 60 and summary.seconds == pytest.approx(11.8)
    assert summary.km == pytest.approx((20 * 12 - 0.5 * 5 * 1.5**2 - 7.5 * 5.5) / 1000, rel=0.01)
    assert not summary.policy and any("policy does not run" in w for w in summary.warnings)
    brake = next(c for c in summary.clips if c.kind == "hard_brake")
    assert Path(brake.path).stat().st_size == brake.bytes
    reports = [m for m in summary.messages if isinstance(m, Telemetry)]
    assert sum(e.manual_m for r in reports for e in r.exposures) / 1000 == pytest.approx(summary.km, rel=0.02)


def test_a_segment_with_video_runs_the_policy(tmp_path: Path) -> None:
    folder = segment(tmp_path / "r/40", brake_at_s=5.0)
    shutil.move(video(tmp_path / "v.mp4", [i * 0.05 for i in range(240)]), folder / "video.hevc")
    summary = run_drive(open_drive(folder), policy_for, tmp_path / "out", "m1")
    assert summary.policy and summary.warnings == []
    brake = next(c for c in summary.clips if c.kind == "hard_brake")
    clip = read_clip(Path(brake.path).read_bytes(), brake.clip_id)
    assert clip.images.shape == (20, 1, 48, 96, 3) and clip.metadata["model_version"] == "m1"
    assert clip.plan_m[0, -1, 0] == pytest.approx(2.4 * 20, rel=0.01)
    event = next(m for m in summary.messages if isinstance(m, TriggerEvent) and m.kind is Trigger.HARD_BRAKE)
    assert event.scores.hindsight_miss > 1.0


def test_a_video_has_clips_and_no_made_up_motion(tmp_path: Path) -> None:
    path = video(tmp_path / "v.mp4", [i / 25 for i in range(300)])
    summary = run_drive(open_drive(path), policy_for, tmp_path / "out", "m1")
    assert summary.km is None and summary.hard_brakes == 0 and summary.policy
    assert summary.clips and summary.clip_bytes == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    assert any("for want of a speed" in w for w in summary.warnings)
    assert all(m.signals == {} for m in summary.messages if isinstance(m, TriggerEvent))
    assert b"/policy/plan" not in Path(summary.clips[0].path).read_bytes()


class Dashcam:
    """Goes straight on at 5 m/s, whatever it is told; remembers what that was."""

    history, gaps = 3, True

    def __init__(self) -> None:
        self.speeds: list[float] = []
        self.pasts: list[int] = []

    def plan(self, observation: Observation) -> Plan:
        self.speeds.append(float(observation.speed_mps[0]))
        self.pasts.append(len(observation.past))
        modes = np.zeros((1, 1, 8, 2), np.float32)
        modes[..., 0] = 1.5 * np.arange(1, 9)
        return Plan(modes, np.ones((1, 1), np.float32), np.ones_like(modes), np.zeros((1, 3), np.float32))


def test_a_policy_that_needs_no_signals_drives_on_video(tmp_path: Path) -> None:
    policy = Dashcam()
    path = video(tmp_path / "v.mp4", [i / 25 for i in range(300)])
    summary = run_drive(open_drive(path), lambda _: policy, tmp_path / "out", "m1")
    assert np.isnan(policy.speeds).all()
    assert set(policy.pasts) == {0, 1, 2}
    assert policy.pasts == sorted(policy.pasts), "once there is a past it has no holes"
    assert not any("for want of a speed" in w for w in summary.warnings)
    assert b"/policy/plan" in Path(summary.clips[0].path).read_bytes()


def test_a_truncated_video_is_a_problem_and_what_came_before_is_kept(tmp_path: Path) -> None:
    path = video(tmp_path / "v.mp4", [i / 25 for i in range(300)], options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    summary = run_drive(open_drive(path), None, tmp_path / "out")
    assert "v.mp4" in summary.problem and ("cut off" in summary.problem or "damaged" in summary.problem)
    assert 5 < summary.frames < 50 and summary.clips


@pytest.mark.parametrize("container", ["mkv", "ts", "flv"])
def test_a_cut_off_video_of_any_container_is_a_problem(tmp_path: Path, container: str) -> None:
    codec = "flv1" if container == "flv" else "mpeg4"
    path = video(tmp_path / f"v.{container}", [i / 25 for i in range(200)], codec=codec)
    whole = run_drive(open_drive(path))
    assert (whole.frames, whole.problem) == (40, "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 1])
    summary = run_drive(open_drive(path))
    assert f"v.{container}: cut off" in summary.problem
    assert 10 < summary.frames < 30


@pytest.mark.parametrize("container", ["mkv", "mp4", "ts"])
def test_pictures_that_start_late_are_not_cut_off(tmp_path: Path, container: str) -> None:
    path = video(tmp_path / f"v.{container}", [0.8 + i / 25 for i in range(100)])
    summary = run_drive(open_drive(path))
    assert (summary.frames, summary.problem) == (20, "")


def test_nothing_to_read_at_all(tmp_path: Path) -> None:
    path = video(tmp_path / "v.mp4", [i / 25 for i in range(300)], options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(BadSource, match=r"v\.mp4"):
        run_drive(open_drive(path))


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    summary = run_drive(open_drive(segment(tmp_path / "r/40", brake_at_s=5.0)))
    assert {c.path for c in summary.clips} == {""} and [p.name for p in tmp_path.iterdir()] == ["r"]


def test_the_same_drive_gives_the_same_clips(tmp_path: Path) -> None:
    folder = segment(tmp_path / "r/40", brake_at_s=5.0)
    names = []
    for out in ("a", "b"):
        run_drive(open_drive(folder), None, tmp_path / out)
        names.append({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()})
    assert names[0] == names[1] and names[0]


def test_a_full_disk_for_the_clips_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge.agent.spool.write_atomic", full)
    summary = run_drive(open_drive(segment(tmp_path / "r/40", brake_at_s=5.0)), None, tmp_path / "out")
    assert "disk for temporary files is full" in summary.problem and summary.clips == []
    assert summary.hard_brakes == 1


def test_the_recorded_drives(tmp_path: Path) -> None:
    summary = run_drive(open_drive(real_segment()), policy_for, tmp_path / "a")
    assert summary.km is not None and abs(summary.km - 1.01) <= 0.0101
    assert (summary.frames, summary.hard_brakes) == (300, 0) and summary.clips and not summary.problem
    dashcam = SHARED / "dashcam/solidWhiteRight.mp4"
    summary = run_drive(open_drive(dashcam), policy_for, tmp_path / "b")
    assert (summary.frames, summary.km, summary.problem) == (45, None, "") and summary.clips
