"""`fleet simulate replay`: recordings that it reads, what it tells, and what it says of broken ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edge.agent.bundles import MANIFEST, MODEL
from edge.agent.clip import encode_clip
from edge.agent.frame import Frame
from edge.bundle import BundleManifest, pack
from edge.sources.source import BadSource
from fleet.log_replay import Asked, run_replay
from fleet.logs import read_drive, read_tracks
from jobs.context import Settings
from model.rig import DASHCAM
from registry.store import canonical_json
from simulation.logs import BadLog, Track, log_of
from simulation.replay import drive_in, recorded_plan, replayed
from simulation.scenarios import REPLAY, condition
from simulation.scores.trace import CAR
from streams.contracts.odd import SPEED, YAW_RATE
from tests.conftest import fleet
from tests.unit.replay_logs import ego, lead, oncoming, walker
from tests.unit.vehicle_policy import straight_on
from tests.unit.vehicle_segment import save, segment

REAL = Path(__file__).resolve().parents[3] / "shared" / "drives" / "comma2k19"
HEAD = "track,kind,time_s,x_m,y_m,heading_rad,length_m,width_m"


def table(path: Path, tracks: list[Track]) -> Path:
    """The tracks as a file, places of boxes' centres."""
    rows = [HEAD]
    for t in tracks:
        ahead = CAR.centre_m if t.name == "ego" else 0.0
        x, y = t.x_m + ahead * np.cos(t.heading_rad), t.y_m + ahead * np.sin(t.heading_rad)
        size = "9.5,2.5" if t.name == "lead" else ","
        for row in zip(t.time_s, x, y, t.heading_rad, strict=True):
            rows.append(",".join([t.name, t.kind, *(f"{value:.9f}" for value in row), size]))
    path.write_text("\n".join(rows) + "\n")
    return path


def asked(log: Path, **changes: object) -> Asked:
    words: dict[str, object] = {
        "tracks": None, "from_s": 0.0, "seconds": 6.0, "reactive": False, "driver": "expert",
    }  # fmt: skip
    return Asked(log, **(words | changes))  # type: ignore[arg-type]


def run(what: Asked, out: Path, *, video: bool = False, as_json: bool = True, **changes: str) -> None:
    words = {"region": "", "weather": "", "time_of_day": "", "fault": "", "rig": ""} | changes
    run_replay(what, seed=1, out=out, video=video, as_json=as_json, **words)


def test_a_table_of_tracks_is_read_as_it_was_written(tmp_path: Path) -> None:
    own, others = read_drive(table(tmp_path / "drive.csv", [ego(), lead(), walker()]))
    np.testing.assert_allclose([own.x_m, own.y_m], [ego().x_m, ego().y_m], atol=1e-6)
    assert [(t.name, t.kind, t.size_m) for t in others] == [
        ("lead", "car", (9.5, 2.5)),
        ("walker", "person", None),
    ]
    np.testing.assert_allclose(others[1].y_m, walker().y_m, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ego,", "me,", "no track named ego; known: me"),
        ("x_m", "x", "no column x_m"),
        ("ego,car,0.050000000", "ego,car,soon", "drive.csv:3: time_s is 'soon'"),
        ("ego,car", "ego,tram", "kind 'tram' is none of car, van"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = table(tmp_path / "drive.csv", [ego()])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadLog, match=expected):
        read_drive(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadLog, match=r"drive\.csv"):
        read_tracks(path)


def test_a_table_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.logs.MOST_ROWS", 20)
    with pytest.raises(BadLog, match=r"drive\.csv: more than 20 rows; cut the table"):
        read_tracks(table(tmp_path / "drive.csv", [ego()]))


@pytest.mark.parametrize("words", [("--tracks", "t.csv"), ("--from", "3"), ("--reactive",), ("--driver", "b.zip")])
def test_what_only_a_replay_takes_is_refused_without_one(words: tuple[str, ...]) -> None:
    done = fleet("simulate", "zebra_crossing", *words)
    assert done.returncode == 2
    assert words[0] in done.stderr and "only a replay takes it" in done.stderr


def test_a_segment_gives_its_path(tmp_path: Path) -> None:
    own, others = read_drive(segment(tmp_path / "seg", 20.0, brake_at_s=4.0))
    assert not others
    log = log_of("seg", own, seconds=10.0)
    np.testing.assert_allclose(log.heading_rad, np.pi / 2, atol=1e-3)
    assert log.speed_mps[10] == pytest.approx(20.0, abs=0.05)
    assert log.speed_mps[80] == pytest.approx(12.5, abs=0.1)
    assert log.accel_mps2[48] == pytest.approx(-5.0, abs=1.0)


def test_a_broken_segment_is_named(tmp_path: Path) -> None:
    folder = segment(tmp_path / "seg")
    positions = np.load(folder / "global_pose/frame_positions")
    positions[40:60, 0] = np.nan
    save(folder / "global_pose/frame_positions", positions)
    with pytest.raises(BadSource, match="frame_positions: 20 values are not finite"):
        read_drive(folder)


def _clip(signals: dict[str, float]) -> bytes:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    return encode_clip(tuple(Frame(i * 200_000_000, signals, image, ("front",)) for i in range(41)), {})


def test_a_clip_is_followed_by_dead_reckoning(tmp_path: Path) -> None:
    signals = {SPEED: 36.0, YAW_RATE: float(np.degrees(0.1))}
    path = tmp_path / "a.mcap"
    path.write_bytes(_clip(signals))
    own, _ = read_drive(path)
    log = log_of("clip", own)
    np.testing.assert_allclose(log.speed_mps, 10.0, atol=0.05)
    np.testing.assert_allclose(log.curvature_per_m[5:-5], 0.01, rtol=0.05)
    assert np.hypot(own.x_m - 0.0, own.y_m - 100.0) == pytest.approx(100.0, abs=0.05), "a circle about (0, 100)"
    path.write_bytes(_clip({SPEED: 36.0}))
    with pytest.raises(BadLog, match=r"has no Vehicle\.AngularVelocity\.Yaw"):
        read_drive(path)


def test_a_replay_is_shown_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = table(tmp_path / "drive.csv", [ego()])
    tracks = table(tmp_path / "others.csv", [lead(), oncoming()])
    run(asked(log, tracks=tracks, reactive=True), tmp_path / "out", video=True, region="uk", rig="dashcam-1")
    told = json.loads(capsys.readouterr().out)
    assert (told["others"], told["reactive"], told["region"], told["seconds"]) == (2, True, "uk", 6.0)
    assert told["recorded"]["pdms"] == 1.0
    assert 0.9 < told["progress"] < 1.1 and told["displacement_m"]["largest"] < 8
    assert np.asarray(Image.open(tmp_path / "out" / told["picture"])).std() > 20
    with av.open(str(tmp_path / "out" / told["video"])) as container:
        assert len(list(container.decode(video=0))) == 30
    run(asked(log, driver="recorded"), tmp_path / "out", as_json=False)
    said = capsys.readouterr().out
    assert "driven by recorded" in said and "progress 1.000" in said and "pdms" in said


def test_a_bundle_drives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Straight on at the speed it has: off the road where that bends."""
    log = table(tmp_path / "drive.csv", [ego()])
    model, ready = straight_on(), tmp_path / "b.zip"
    manifest = BundleManifest(
        model_version="m", hardware=Settings().hardware, files={MODEL: hashlib.sha256(model).hexdigest()},
        runtime="onnx", abi="1", kind="fp32", rig=asdict(DASHCAM), parity={}, same_choice=1.0, latency_ms_p50=1.0,
        latency_ms_p99=1.0, watts=1.0, watts_source="made up", watts_origin="nowhere", rate_hz=5.0, notes=[],
    )  # fmt: skip
    ready.write_bytes(pack({MODEL: model, MANIFEST: canonical_json(manifest)}))
    run(asked(log, driver=str(ready), from_s=4.0, seconds=8.0), tmp_path / "out", rig="dashcam-1")
    told = json.loads(capsys.readouterr().out)
    assert told["failures"][0]["cause"] == "lateral"
    assert told["scores"]["pdms"] < 0.8 < told["recorded"]["pdms"]


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    log = table(tmp_path / "drive.csv", [ego()])
    with pytest.raises(ValueError, match="unknown rig 'bus'"):
        run(asked(log), tmp_path / "out", rig="bus")
    with pytest.raises(
        BadLog, match="unknown driver 'nobody': expert, recorded, or the file of a bundle or a checkpoint"
    ):
        run(asked(log, driver="nobody"), tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written before all words are understood"


@pytest.mark.skipif(not REAL.exists(), reason="the recorded drives are not here")
def test_a_real_segment_is_driven_as_it_was() -> None:
    folder = next(REAL.glob("*/*/*/global_pose")).parent
    own, _ = read_drive(folder)
    judged = drive_in(replayed(log_of("real", own, from_s=5.0), condition(REPLAY.name), 1), recorded_plan)
    assert judged.recorded["pdms"] > 0.99
    assert judged.scores["pdms"] > 0.95
    assert judged.displacement_m.max() < 1.0
    assert judged.progress == pytest.approx(1.0, abs=0.01)
