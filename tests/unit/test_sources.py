"""Recorded drives: comma2k19 segments and videos, good and bad."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.drive_log import open_drive
from edge.sources.comma2k19 import Comma2k19Drive, geodetic
from edge.sources.images import fit
from edge.sources.source import BadSource
from edge.sources.video import VideoDrive, upright
from streams.contracts.odd import ACCELERATION, SPEED, YAW_RATE
from tests.unit.vehicle_segment import save, segment
from tests.unit.vehicle_video import video

SHARED = Path(__file__).resolve().parents[3] / "shared" / "drives"


def real_segment() -> Path:
    found = list(SHARED.glob("comma2k19/*/*/*/global_pose"))
    if not found:
        pytest.skip("the recorded drives are not beside this checkout")
    return found[0].parent


def test_a_segment_as_frames(tmp_path: Path) -> None:
    drive = Comma2k19Drive(segment(tmp_path / "r" / "40"))
    frames = list(drive.frames())
    assert drive.km == pytest.approx(0.24, rel=0.005) and drive.duration_s == pytest.approx(11.95)
    assert len(frames) == 60 and drive.rig is None and frames[0].images is None
    assert np.diff([f.time_ns for f in frames]).tolist() == [200_000_000] * 59
    middle = frames[30]
    assert middle.signals[SPEED] == pytest.approx(72.0)
    assert middle.signals[YAW_RATE] == pytest.approx(0, abs=0.05)
    assert middle.pose is not None
    assert middle.pose.latitude_deg == pytest.approx(37.7211, abs=2e-4)
    assert middle.pose.heading_rad == pytest.approx(np.pi / 2, abs=0.01)
    assert any("no video.hevc" in w for w in drive.warnings)


def test_times_are_utc_from_gps() -> None:
    frames = list(Comma2k19Drive(real_segment()).frames())
    # The route's name says 2018-08-02 08:34:47 local time (PDT), and this is its minute 40.
    assert abs(frames[0].time_ns / 1e9 - (1_533_224_087 + 40 * 60)) < 120


def test_braking_is_in_the_signals(tmp_path: Path) -> None:
    frames = list(Comma2k19Drive(segment(tmp_path / "40", brake_at_s=5.0)).frames())
    assert min(f.signals[ACCELERATION] for f in frames) == pytest.approx(-5.0, abs=0.05)


REQUIRED = (
    "global_pose/frame_times",
    "global_pose/frame_positions",
    "global_pose/frame_orientations",
    "global_pose/frame_velocities",
    "processed_log/CAN/speed/t",
    "processed_log/CAN/speed/value",
    "processed_log/CAN/steering_angle/value",
    "processed_log/CAN/wheel_speed/t",
    "processed_log/CAN/wheel_speed/value",
)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = segment(tmp_path / "40") / name
    path.unlink()
    with pytest.raises(BadSource, match=f"{name}: missing"):
        Comma2k19Drive(tmp_path / "40")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_file_cut_short_is_named(tmp_path: Path, name: str) -> None:
    path = segment(tmp_path / "40") / name
    data = path.read_bytes()
    for length in (0, 10, 100, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(BadSource, match=f"{name}: not a whole NumPy file"):
            Comma2k19Drive(tmp_path / "40")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_file_with_too_few_rows_is_noticed(tmp_path: Path, name: str) -> None:
    path = segment(tmp_path / "40") / name
    array = np.load(path)
    save(path, array[: len(array) // 2])
    with pytest.raises(BadSource, match=r"shape .* must be|covers"):
        Comma2k19Drive(tmp_path / "40")


def test_a_signal_that_covers_only_part_of_the_segment(tmp_path: Path) -> None:
    folder = segment(tmp_path / "40")
    for part in ("t", "value"):
        path = folder / "processed_log/CAN/speed" / part
        save(path, np.load(path)[:400])
    with pytest.raises(BadSource, match=r"speed/t: covers 100\.0 to 104\.8 s .* too short"):
        Comma2k19Drive(folder)


def test_wrong_content(tmp_path: Path) -> None:
    folder = segment(tmp_path / "40")
    speed = folder / "processed_log/CAN/speed/value"
    good = np.load(speed)
    bad = good.copy()
    bad[7] = np.nan
    save(speed, bad)
    with pytest.raises(BadSource, match="1 values are not finite"):
        Comma2k19Drive(folder)
    save(speed, good * 100)
    with pytest.raises(BadSource, match="no speed of a car"):
        Comma2k19Drive(folder)
    save(speed, good.astype("S8"))
    with pytest.raises(BadSource, match="holds no numbers"):
        Comma2k19Drive(folder)
    save(speed, good)
    times = folder / "global_pose/frame_times"
    save(times, np.load(times)[::-1])
    with pytest.raises(BadSource, match="not rising"):
        Comma2k19Drive(folder)


@pytest.mark.parametrize("span_s", [0.0, 1e-12])
def test_times_that_stand_still(tmp_path: Path, span_s: float) -> None:
    folder = segment(tmp_path / "40")
    video(tmp_path / "v.mp4", [i * 0.05 for i in range(240)])
    shutil.move(tmp_path / "v.mp4", folder / "video.hevc")
    times = folder / "global_pose/frame_times"
    save(times, np.linspace(105.0, 105.0 + span_s, 240))
    with pytest.raises(BadSource, match=r"frame_times: 240 times from 105 to 105 s; they must rise"):
        Comma2k19Drive(folder)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("frame_orientations", 0.0, r"frame_orientations: row 7 is \[0\. 0\. 0\. 0\.\]: no rotation"),
        ("frame_positions", 0.0, r"frame_positions: row 7 is \[0\. 0\. 0\.\]: not on the Earth"),
    ],
)
def test_poses_that_cannot_be(tmp_path: Path, name: str, value: float, match: str) -> None:
    path = segment(tmp_path / "40") / "global_pose" / name
    array = np.load(path)
    array[7] = value
    save(path, array)
    with pytest.raises(BadSource, match=match):
        Comma2k19Drive(tmp_path / "40")


def test_a_route_without_gps_is_dated_by_its_name(tmp_path: Path) -> None:
    folder = segment(tmp_path / "b0c9d2329ad1606b_2018-08-02--08-34-47" / "40")
    (folder / "global_pose/frame_gps_times").unlink()
    drive = Comma2k19Drive(folder)
    assert next(drive.frames()).time_ns == (1_533_198_887 + 40 * 60) * 10**9
    assert not any("1970" in w for w in drive.warnings)


@pytest.mark.parametrize("route", ["2018-13-45--99-99-99", "0001-01-01--00-00-00", "a-drive"])
@pytest.mark.parametrize("minute", ["40", "²", "9" * 30])
def test_a_name_that_is_no_date_is_a_warning(tmp_path: Path, route: str, minute: str) -> None:
    folder = segment(tmp_path / route / minute)
    (folder / "global_pose/frame_gps_times").unlink()
    drive = Comma2k19Drive(folder)
    assert next(drive.frames()).time_ns == 0
    assert [w for w in drive.warnings if f"{route}/{minute}" in w and "1970" in w]


@pytest.mark.parametrize("gps", [(1e12, 0.0), (2012.0, -5.0), (2012.0, 1e9)])
def test_gps_times_that_cannot_be_are_a_warning(tmp_path: Path, gps: tuple[float, float]) -> None:
    folder = segment(tmp_path / "2018-08-02--08-34-47" / "40")
    save(folder / "global_pose/frame_gps_times", np.tile(gps, (240, 1)))
    drive = Comma2k19Drive(folder)
    assert next(drive.frames()).time_ns == (1_533_198_887 + 40 * 60) * 10**9
    assert [w for w in drive.warnings if "frame_gps_times" in w and f"{gps[0]:g}" in w]


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = segment(tmp_path / "40")
    with (folder / "processed_log/CAN/speed/value").open("wb") as file:
        np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(BadSource, match="not a whole NumPy file"):
        Comma2k19Drive(folder)


def test_wrongly_scaled_speeds_are_noticed(tmp_path: Path) -> None:
    folder = segment(tmp_path / "40")
    assert not any("disagree" in w for w in Comma2k19Drive(folder).warnings)
    path = folder / "processed_log/CAN/wheel_speed/value"
    save(path, np.load(path) * 3.6)
    warnings = Comma2k19Drive(folder).warnings
    assert [w for w in warnings if "disagree" in w and "wheel_speed" in w]


def test_a_segment_with_video(tmp_path: Path) -> None:
    folder = segment(tmp_path / "40")
    video(tmp_path / "v.mp4", [i * 0.05 for i in range(240)])
    shutil.move(tmp_path / "v.mp4", folder / "video.hevc")
    drive = Comma2k19Drive(folder)
    frames = list(drive.frames())
    assert drive.rig is not None and len(frames) == 60
    assert frames[0].images is not None and frames[0].images.shape == (1, 48, 96, 3)
    assert frames[0].images[0, 24, 10, 0] < frames[20].images[0, 24, 10, 0]  # type: ignore[index]


def test_a_segment_whose_video_is_cut_off(tmp_path: Path) -> None:
    folder = segment(tmp_path / "40")
    video(tmp_path / "v.mp4", [i * 0.05 for i in range(100)])
    shutil.move(tmp_path / "v.mp4", folder / "video.hevc")
    with pytest.raises(BadSource, match=r"video\.hevc: cut off: 100 pictures of 240"):
        list(Comma2k19Drive(folder).frames())


def test_the_recorded_segment() -> None:
    drive = Comma2k19Drive(real_segment())
    assert drive.km is not None and abs(drive.km - 1.01) < 0.0101
    assert len(list(drive.frames())) == 300
    assert not any("disagree" in w for w in drive.warnings)


def test_latitude_and_longitude() -> None:
    assert np.degrees(geodetic(np.array([6_378_137.0, 0, 0]))) == pytest.approx([0, 0])
    assert np.degrees(geodetic(np.array([0, 0, 6_356_752.314]))) == pytest.approx([90, 0], abs=1e-6)
    # U-blox fix of the recorded segment's first second.
    found = np.degrees(geodetic(np.array([-2712087.51680896, -4261670.05595519, 3881014.4539217])))
    assert found == pytest.approx([37.7210, -122.4723], abs=1e-4)


def test_a_video_as_frames(tmp_path: Path) -> None:
    drive = VideoDrive(video(tmp_path / "v.mp4", [i / 25 for i in range(100)]))
    frames = list(drive.frames())
    assert len(frames) == 20 and drive.km is None and drive.duration_s == pytest.approx(4.0, abs=0.1)
    assert all(f.signals == {} for f in frames)
    assert np.diff([f.time_ns for f in frames]) == pytest.approx(200_000_000, abs=41_000_000)
    image = frames[3].images
    assert image is not None and image.shape == (1, 48, 96, 3)
    assert abs(int(image[0, 20, 10, 0]) - 40) < 8 and image[0, 20, 80, 2] > 200
    assert any("no motion signals" in w for w in drive.warnings)


def test_variable_frame_rate_keeps_the_pictures_own_times(tmp_path: Path) -> None:
    times = [0, 0.05, 0.1, 0.9, 0.95, 1.0, 1.6, 3.0]
    frames = list(VideoDrive(video(tmp_path / "v.mkv", times)).frames())
    found = [(f.time_ns - frames[0].time_ns) / 1e9 for f in frames]
    assert found == pytest.approx([0, 0.9, 1.0, 1.6, 3.0], abs=2e-3)


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.2])
def test_a_truncated_video_gives_its_good_part_and_an_error(tmp_path: Path, keep: float) -> None:
    rng = np.random.default_rng(0)
    times = sorted(set((np.arange(250) / 25 + rng.uniform(0, 0.01, 250)).round(3)))
    path = video(tmp_path / "v.mp4", times, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    drive = VideoDrive(path)
    frames = []
    with pytest.raises(BadSource, match=r"cut off|damaged"):
        for frame in drive.frames():
            frames.append(frame)
    assert len(frames) < 50


def test_a_video_that_lost_its_index_cannot_be_opened(tmp_path: Path) -> None:
    path = video(tmp_path / "v.mp4", [i / 25 for i in range(50)])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadSource, match=r"v\.mp4: not a video that can be read"):
        VideoDrive(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(BadSource, match=r"v\.mp4: not a video"):
        VideoDrive(path)


def test_pictures_are_turned_upright() -> None:
    class Picture:
        rotation = 90

        def to_ndarray(self, format: str) -> np.ndarray:  # noqa: A002
            assert format == "rgb24"
            return np.arange(18, dtype=np.uint8).reshape(2, 3, 3)

    turned = upright(Picture())  # type: ignore[arg-type]
    assert turned.shape == (3, 2, 3)
    # FFmpeg gives the anticlockwise turn that shows the picture upright: the right column comes on top.
    assert turned[0, 0].tolist() == [6, 7, 8]


def test_pictures_keep_their_shape() -> None:
    image = np.zeros((540, 960, 3), np.uint8)
    image[:15], image[-15:], image[:, 470:490] = 200, 200, 100
    small = fit(image, 96, 48)
    assert small.shape == (48, 96, 3) and small[0, 10, 0] == 0 and small[24, 48, 0] > 80
    tall = fit(np.full((960, 540, 3), 99, np.uint8), 96, 48)
    assert tall.shape == (48, 96, 3) and tall[24, 48, 0] == 99 and tall[24, 5, 0] == 0


def test_open_drive_tells_what_it_expects(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no such file or folder"):
        open_drive(tmp_path / "nothing")
    with pytest.raises(BadSource, match="folder of one minute"):
        open_drive(tmp_path)
    (tmp_path / "global_pose").mkdir()
    with pytest.raises(BadSource, match="frame_times: missing"):
        open_drive(tmp_path)
