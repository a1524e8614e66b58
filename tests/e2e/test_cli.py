"""The command line as a stranger meets it: help with examples, errors of one line that say what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import ROOT, fleet
from tests.unit.vehicle_segment import save, segment

COMMANDS = (
    ("demo",),
    ("vehicle",),
    ("benchmark",),
    ("simulate",),
    ("worker",),
    ("registrar",),
    ("exporter",),
    ("topics",),
    ("topics", "diff"),
    ("topics", "apply"),
    ("kafka",),
    ("streams", "lag"),
    ("streams", "asyncapi"),
    ("streams", "record"),
    ("streams", "run"),
    ("streams", "dry-run"),
    ("streams", "play"),
    ("streams", "dead-letters", "list"),
    ("streams", "dead-letters", "show"),
    ("streams", "dead-letters", "replay"),
    ("campaigns", "list"),
    ("campaigns", "show"),
    ("campaigns", "create"),
    ("campaigns", "approve"),
    ("campaigns", "kill"),
    ("campaigns", "check"),
    ("campaigns", "names"),
    ("campaigns", "debt"),
    ("model", "adapt"),
    ("model", "merge"),
    ("model", "practise"),
    ("replay",),
)


def said(*words: str, code: int | None = None) -> str:
    """What a failing command says: one line or a usage note on stderr, nothing on stdout, no traceback; and its
    exit status, which is never 0 nor that of a bug."""
    done = fleet(*words, timeout_s=60)
    assert done.returncode not in (0, 70), (done.returncode, done.stdout, done.stderr)
    assert code in (None, done.returncode), (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return re.sub(r"\s+", " ", done.stderr)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    done = fleet(*command, "--help", timeout_s=60)
    assert done.returncode == 0
    assert "Usage: " in done.stdout
    first = done.stdout.split("\n\n")[1].strip()
    assert len(first) > 15, "a sentence that says what it does"


def test_the_listing_has_whole_sentences() -> None:
    listing = fleet("--help", timeout_s=60).stdout
    assert "..." not in listing.replace("[ARGS]...", "")
    for command in {c[0] for c in COMMANDS}:
        assert command in listing


def test_topics_are_told_as_a_table_and_as_json() -> None:
    rows = json.loads(fleet("topics", "--json").stdout)
    assert {"name", "key", "partitions", "carries"} <= set(rows[0])
    table = fleet("topics").stdout
    assert all(row["name"] in table for row in rows)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("vehicle", "--log", "no/such/drive"), "no/such/drive"),
        (("benchmark", "warp"), "flywheel"),
        (("benchmark", "flywheel", "--seeds", "a,b"), "whole numbers"),
        (("demo", "--turns", "0"), "--turns"),
        (("demo", "--quick", "--store", "warp://x", "--out", "unused-out"), "warp"),
        (("demo", "--quick", "--mlflow", "http://127.0.0.1:9", "--out", "unused-out"), "127.0.0.1:9"),
        (("demo", "--quick", "--kafka", "127.0.0.1:9", "--out", "unused-out"), "127.0.0.1:9"),
        (("streams", "dead-letters", "list", "--kafka", "127.0.0.1:9"), "127.0.0.1:9"),
        (("streams", "lag", "--kafka", "127.0.0.1:9"), "127.0.0.1:9"),
        (("streams", "lag"), "--kafka"),
        (("worker", "--kafka", "127.0.0.1:9", "--config", "dreams"), "quick"),
        (("worker", "--kafka", "127.0.0.1:9", "--mlflow", "http://127.0.0.1:9"), "MLflow does not answer"),
        (("registrar", "--kafka", "127.0.0.1:9", "--home", "build/none"), "127.0.0.1:9"),
        (("exporter", "--kafka", "127.0.0.1:9", "--port", "0"), "127.0.0.1:9"),
        (("topics", "diff", "--kafka", "nowhere"), "HOST:PORT"),
        (("streams", "dry-run", "novelty"), "--input"),
        (("streams", "dry-run", "dreaming", "--input", "x"), "selection"),
        (("streams", "dry-run", "novelty", "--input", "no-such-file"), "no-such-file"),
        (("streams", "dry-run", "novelty", "--input", "README.md"), "README.md:1"),
        (("streams", "dry-run", "novelty", "--input", "README.md", "--settle", "soon"), "soon"),
        (
            ("streams", "dry-run", "novelty", "--input", "README.md", "--from", "1h", "--to", "3h"),
            "--from 1h is not before --to 3h",
        ),
        (("streams", "asyncapi", "--against", "README.md"), "README.md"),
        (("streams", "record", "--kafka", "127.0.0.1:9", "--topics", "no.such", "--out", "x"), "no.such"),
        (
            ("streams", "play", "--input", "no-file", "--topics", "fleet.events", "--kafka", "127.0.0.1:9"),
            "no-file",
        ),
        (("streams", "dead-letters", "list", "--topic", "no.such", "--kafka", "127.0.0.1:9"), "no.such"),
        (("replay", "--input", "README.md", "--when", "illumination == 'knight'"), "never 'knight'"),
        (("streams", "play", "--input", "README.md", "--topics", "no.such", "--kafka", "127.0.0.1:9"), "no.such"),
        (("streams", "dead-letters", "list", "--from", "soon", "--kafka", "127.0.0.1:9"), "soon"),
        (("campaigns", "list"), "--input"),
        (("campaigns", "list", "--input", "README.md"), "README.md:1"),
        (("campaigns", "create", "x", "--when", "speed > 1", "--by", "a", "--kafka", "127.0.0.1:9"), "'speed'"),
        (("campaigns", "create", "x", "--when", "true", "--by", "a", "--kafka", "127.0.0.1:9"), "127.0.0.1:9"),
        (
            ("campaigns", "create", "x", "--when", "true", "--by", "a", "--kafka", "h:9", "--probability", "0"),
            "'--probability': Input should be greater than",
        ),
        (("campaigns", "kill", "x", "--by", "a", "--kafka", "127.0.0.1:9"), "127.0.0.1:9"),
        (("replay", "--input", "README.md", "--when", "true"), "README.md:1"),
        (("replay", "--input", "README.md"), "one of them"),
        (("replay", "--input", "README.md", "--stage", "dreaming"), "selection"),
        (("frobnicate",), "No such command"),
    ],
)
def test_what_is_wrong_is_named(words: tuple[str, ...], expected: str) -> None:
    assert expected in said(*words)
    assert not (ROOT / "unused-out").exists(), "nothing is made before the arguments are known to work"


def test_the_broker_may_stand_in_the_environment() -> None:
    for command in (
        ("campaigns", "list"),
        ("streams", "dry-run", "novelty"),
        ("streams", "lag"),
        ("streams", "run"),
    ):
        refused = fleet(*command, FLEET_KAFKA="127.0.0.1:9")
        assert refused.returncode == 1 and "127.0.0.1:9" in refused.stderr, command
    told = fleet("campaigns", "list", "--input", "README.md", FLEET_KAFKA="127.0.0.1:9").stderr
    assert "README.md:1" in told, "who names a file means the file"


def test_a_condition_is_checked_before_a_vehicle_sees_it() -> None:
    assert fleet("campaigns", "check", "Vehicle.Speed > 50.0").returncode == 0
    refused = fleet("campaigns", "check", "Vehicle.Sped > 50.0", "--json")
    assert refused.returncode == 1 and refused.stderr == ""
    told = json.loads(refused.stdout)
    assert not told["accepted"] and "Vehicle.Sped" in told["reason"]


def test_a_folder_that_is_no_drive_and_a_file_that_is_no_video(tmp_path: Path) -> None:
    assert "comma2k19" in said("vehicle", "--log", str(tmp_path))
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    assert "notes.mp4" in said("vehicle", "--log", str(text))


def test_a_file_that_is_no_bundle(tmp_path: Path) -> None:
    bundle, drive = tmp_path / "bundle.zip", tmp_path / "drive.mp4"
    bundle.write_bytes(b"PK\x03\x04 nothing")
    write_video(drive, frames=30)
    assert "bundle.zip" in said("vehicle", "--log", str(drive), "--bundle", str(bundle))


@pytest.mark.slow
def test_a_video_is_driven_through(tmp_path: Path) -> None:
    drive = tmp_path / "drive.mp4"
    write_video(drive, frames=100)
    done = fleet("vehicle", "--log", str(drive), "--out", str(tmp_path / "clips"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["km"] is None, "a video does not tell how far it went"
    assert told["frames"] == pytest.approx(20, abs=1)
    assert told["policy"] is True
    paths = [Path(c["path"]) for c in told["clips"]]
    assert paths
    assert all(p.read_bytes().startswith(b"\x89MCAP0\r\n") for p in paths)


@pytest.mark.slow
def test_a_truncated_video_tells_what_came_before_and_fails(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    write_video(whole, frames=200)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = fleet("vehicle", "--log", str(cut), "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"cut\.mkv: (cut off|damaged)", done.stderr), done.stderr
    told = json.loads(done.stdout)
    assert told["frames"] == pytest.approx(20, abs=5), "half of the 40"
    assert "cut.mkv" in told["problem"]


def test_a_video_cut_off_before_its_index_is_named(tmp_path: Path) -> None:
    drive = tmp_path / "cut.mp4"
    write_video(drive, frames=50)
    drive.write_bytes(drive.read_bytes()[: drive.stat().st_size // 2])
    told = said("vehicle", "--log", str(drive), "--json", code=1)
    assert "cut.mp4: not a video that can be read" in told
    assert "cut off" in told


@pytest.mark.parametrize("name", ["global_pose/frame_positions", "processed_log/CAN/speed/value"])
def test_a_missing_file_of_a_segment_is_named(tmp_path: Path, name: str) -> None:
    folder = segment(tmp_path / "route" / "40")
    (folder / name).unlink()
    assert f"{name}: missing; the segment is incomplete" in said("vehicle", "--log", str(folder), code=1)


@pytest.mark.parametrize("name", ["global_pose/frame_times", "processed_log/CAN/steering_angle/value"])
def test_a_short_file_of_a_segment_is_named(tmp_path: Path, name: str) -> None:
    path = segment(tmp_path / "route" / "40") / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    told = said("vehicle", "--log", str(tmp_path / "route" / "40"), "--json", code=1)
    assert f"{name}: not a whole NumPy file" in told


def test_a_file_of_a_segment_with_too_few_rows_is_named(tmp_path: Path) -> None:
    path = segment(tmp_path / "route" / "40") / "global_pose/frame_velocities"
    save(path, np.load(path)[:-1])
    told = said("vehicle", "--log", str(tmp_path / "route" / "40"), code=1)
    assert "frame_velocities: shape (239, 3), must be (240, 3)" in told


def write_video(path: Path, frames: int) -> None:
    """A 25 Hz clip of a moving gradient."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 96, "yuv420p"
        for i in range(frames):
            image = np.add.outer(np.arange(96) * 2, np.arange(192)) + 3 * i
            frame = av.VideoFrame.from_ndarray(np.repeat((image % 255).astype(np.uint8)[..., None], 3, 2), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
