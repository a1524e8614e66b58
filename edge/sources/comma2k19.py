"""A comma2k19 segment (arXiv:1812.05752): one minute of CAN, poses and, where it was downloaded, video.hevc.

Layout: `global_pose/frame_*` (20 Hz, ECEF m, quaternions w x y z of the forward-right-down device frame),
`processed_log/CAN/NAME/{t,value}`; NumPy arrays without an extension. Speed is in m/s, steering in degrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.agent.frame import KMH, Frame
from edge.sources.images import fit
from edge.sources.source import FRAME_NS, BadSource
from edge.sources.video import pictures, upright
from model.rig import Camera, Rig
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Pose
from streams.contracts.odd import ACCELERATION, SPEED, STEERING_ANGLE, YAW_RATE

Floats = NDArray[np.float64]
EON = Rig("eon-96x48", (Camera("front", 96, 48, 2 * float(np.arctan(1164 / 2 / 910)), 1.5, 0.0, 1.22),))
"""The dataset's camera: 1164 x 874 px, focal length 910 px, cropped to the middle rows."""
REGION = "us-ca"
"""All of the dataset was driven between San Jose and San Francisco."""
DISAGREE_MPS, DISAGREE_SHARE = 0.3, 0.03
"""Two speeds disagree when their median difference is above both."""
UNCOVERED_S = 2.0
"""A signal may miss this much of the segment at either end."""
SHORTEST_S = 0.001
"""No recording is shorter; between times that stand still there is no rate."""
FASTEST_MPS = 90.0
SHORTEST_QUATERNION = 0.5
"""A rotation has length 1."""
_GPS_EPOCH_S = 315_964_800
_LEAP_S = 18
"""GPS ahead of UTC since 2017 (IERS Bulletin C); the dataset is of 2018."""
_GPS_WEEKS = (1000, 6000)
_WEEK_S = 604_800
_FIRST_YEAR = 1980
_FOLDER = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}--[0-9]{2}-[0-9]{2}-[0-9]{2})")
_MINUTE = re.compile(r"[0-9]{1,4}")
EARTH_M = (6_300_000.0, 6_450_000.0)
"""Distances from the centre of the Earth at which a car can be."""


@dataclass(frozen=True, slots=True)
class Track:
    """One signal: times s, rising, and values [N] or [N, K]."""

    t: Floats
    value: Floats

    def at(self, t: Floats) -> Floats:
        """Linear between samples."""
        return np.asarray(np.interp(t, self.t, self.value), np.float64)


class Comma2k19Drive:
    """A segment as a drive (see source.Drive)."""

    def __init__(self, folder: Path, region: str = REGION) -> None:
        """Reads and checks everything but the video. Raises BadSource, naming the file."""
        self.name, self.region = f"{folder.resolve().parent.name}/{folder.resolve().name}", region
        self._folder = folder
        self.warnings: list[str] = []
        if not folder.is_dir():
            raise BadSource(f"{folder}: there is no such folder")
        self._frame_t = _times(folder / "global_pose/frame_times")
        self._positions = _array(folder / "global_pose/frame_positions", (len(self._frame_t), 3))
        self._orientations = _array(folder / "global_pose/frame_orientations", (len(self._frame_t), 4))
        _check_poses(folder, self._positions, self._orientations)
        velocities = _array(folder / "global_pose/frame_velocities", (len(self._frame_t), 3))
        self._speed = self._track("speed")
        self._steering = self._track("steering_angle")
        self._cross_check(velocities)
        video = folder / "video.hevc"
        self._video = video if video.exists() else None
        self.rig: Rig | None = EON if self._video else None
        if self._video is None:
            self.warnings.append("there is no video.hevc: frames have no images, so the policy does not run")
        self.duration_s = float(self._frame_t[-1] - self._frame_t[0])
        self.km: float | None = float(np.trapezoid(np.abs(self._speed.value), self._speed.t)) / 1000
        self._start_ns = self._recorded_ns()

    def frames(self) -> Iterator[Frame]:
        """See source.Drive: 5 Hz over the span that poses and signals share."""
        if self._video is None:
            for t in self._ticks():
                yield self._frame(float(t), None)
            return
        # Raw HEVC has no times; picture n belongs to frame_times[n].
        rate = (len(self._frame_t) - 1) / self.duration_s
        shown = 0
        for _, picture in pictures(self._video, 0.0):
            if shown == len(self._frame_t):
                break
            t = float(self._frame_t[shown])
            if shown % max(round(rate * FRAME_NS / SECOND_NS), 1) == 0 and self._covered(t):
                yield self._frame(t, upright(picture))
            shown += 1
        if shown < len(self._frame_t):
            raise BadSource(f"{self._video}: cut off: {shown} pictures of {len(self._frame_t)} frame times")

    def path(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Times in s since the first, and metres east and north of the first place with the device's heading, [N]
        each: where the poses say it was, at their own 20 Hz."""
        north, east = _level(self._positions[0])
        moved = self._positions - self._positions[0]
        pairs = zip(self._positions, self._orientations, strict=True)
        heading = np.array([_heading_rad(position, orientation) for position, orientation in pairs])
        return self._frame_t - self._frame_t[0], moved @ east, moved @ north, heading

    def _covered(self, t: float) -> bool:
        return bool(self._speed.t[0] <= t <= self._speed.t[-1])

    def _ticks(self) -> Floats:
        start, end = max(self._frame_t[0], self._speed.t[0]), min(self._frame_t[-1], self._speed.t[-1])
        steps = np.arange(int((end - start) * SECOND_NS / FRAME_NS) + 1)
        return np.asarray(start + steps * (FRAME_NS / SECOND_NS), np.float64)

    def _frame(self, t: float, image: NDArray[np.uint8] | None) -> Frame:
        camera = EON.cameras[0]
        images = None if image is None else fit(image, camera.width_px, camera.height_px)[None]
        row = int(np.searchsorted(self._frame_t, t).clip(0, len(self._frame_t) - 1))
        return Frame(
            time_ns=self._start_ns + round((t - float(self._frame_t[0])) * SECOND_NS),
            signals=self._signals(t),
            images=images,
            cameras=() if images is None else (camera.name,),
            pose=_pose(self._positions[row], self._orientations[row]),
        )

    def _signals(self, t: float) -> dict[str, float]:
        """Speed and its slope from CAN, yaw rate from the poses, each over 0.4 s about `t`."""
        around = np.array([t - 0.2, t + 0.2]).clip(self._speed.t[0], self._speed.t[-1])
        slope = np.diff(self._speed.at(around))[0] / max(float(np.diff(around)[0]), 0.1)
        rows = np.searchsorted(self._frame_t, [t - 0.2, t + 0.2]).clip(0, len(self._frame_t) - 1)
        first, last = (_heading_rad(self._positions[r], self._orientations[r]) for r in rows)
        turn = (last - first + np.pi) % (2 * np.pi) - np.pi
        passed_s = max(float(self._frame_t[rows[1]] - self._frame_t[rows[0]]), 0.05)
        return {
            SPEED: float(self._speed.at(np.array(t))) * KMH,
            ACCELERATION: float(slope),
            YAW_RATE: float(np.degrees(turn / passed_s)),
            STEERING_ANGLE: float(self._steering.at(np.array(t))),
        }

    def _track(self, name: str) -> Track:
        """A scalar CAN signal that covers the segment."""
        folder = self._folder / "processed_log/CAN" / name
        t = _times(folder / "t")
        value = _array(folder / "value", (len(t),))
        if t[0] > self._frame_t[0] + UNCOVERED_S or t[-1] < self._frame_t[-1] - UNCOVERED_S:
            raise BadSource(
                f"{folder / 't'}: covers {t[0]:.1f} to {t[-1]:.1f} s of the segment's {self._frame_t[0]:.1f} to "
                f"{self._frame_t[-1]:.1f} s; the file is too short: download the segment again"
            )
        if name == "speed" and np.abs(value).max() > FASTEST_MPS:
            raise BadSource(f"{folder / 'value'}: {np.abs(value).max():.0f} m/s is no speed of a car")
        return Track(t, value)

    def _cross_check(self, velocities: Floats) -> None:
        """The CAN speed against what else tells speed; a disagreement is a warning, since either may be wrong."""
        reference = self._speed.at(self._frame_t)
        self._compare("global_pose/frame_velocities", np.linalg.norm(velocities, axis=1), reference)
        folder = self._folder / "processed_log/CAN/wheel_speed"
        if not folder.exists():
            self.warnings.append("there are no wheel speeds to check the CAN speed against")
            return
        t = _times(folder / "t")
        wheels = _array(folder / "value", (len(t), 4))
        self._compare("processed_log/CAN/wheel_speed", wheels.mean(1), self._speed.at(t))

    def _compare(self, name: str, speeds: Floats, reference: Floats) -> None:
        gap = float(np.median(np.abs(speeds - reference)))
        typical = float(np.median(np.abs(reference)))
        if gap > DISAGREE_MPS and gap > DISAGREE_SHARE * typical:
            self.warnings.append(
                f"{name} and processed_log/CAN/speed disagree by {gap:.2f} m/s (median) at {typical:.1f} m/s: one "
                "is wrongly decoded or scaled"
            )

    def _recorded_ns(self) -> int:
        """UTC of the first frame: GPS time, else the route's name, else 1970 with a warning."""
        path = self._folder / "global_pose/frame_gps_times"
        if path.exists():
            week, seconds = _array(path, (len(self._frame_t), 2))[0]
            if _GPS_WEEKS[0] < week < _GPS_WEEKS[1] and 0 <= seconds < _WEEK_S:
                return round(float(_GPS_EPOCH_S - _LEAP_S + week * _WEEK_S + seconds) * 1e6) * 1000
            self.warnings.append(f"{path}: week {week:g}, second {seconds:g} is no GPS time")
        named = _named_s(self._folder)
        if named is None:
            self.warnings.append(
                f"neither GPS time nor the name {self.name} tells when it was recorded: times start at 1970"
            )
        return (named or 0) * SECOND_NS


def _named_s(folder: Path) -> int | None:
    """UTC s by the name of the route and its minute, as in 2018-08-02--08-34-47/40; None if it is no date."""
    found, minute = _FOLDER.search(str(folder)), _MINUTE.fullmatch(folder.name)
    try:
        started = datetime.strptime(found[1], "%Y-%m-%d--%H-%M-%S").replace(tzinfo=UTC) if found else None
    except ValueError:
        return None
    if started is None or started.year < _FIRST_YEAR:
        return None
    return int(started.timestamp()) + 60 * (int(minute[0]) if minute else 0)


def _array(path: Path, shape: tuple[int, ...]) -> Floats:
    """A NumPy file of at least 2 rows; a trailing axis of length 1 is dropped. Raises BadSource."""
    if not path.is_file():
        raise BadSource(f"{path}: missing; the segment is incomplete, download it again")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadSource(f"{path}: not a whole NumPy file ({error}); download it again") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BadSource(f"{path}: holds no numbers")
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.shape != shape:
        raise BadSource(f"{path}: shape {array.shape}, must be {shape} like the file of times beside it")
    if not np.isfinite(array).all():
        raise BadSource(f"{path}: {int((~np.isfinite(array)).sum())} values are not finite")
    return np.asarray(array, np.float64)


def _times(path: Path) -> Floats:
    """Rising times. Raises BadSource."""
    rows = _rows(path)
    t = _array(path, (rows,))
    if rows < 2 or (np.diff(t) < 0).any():
        raise BadSource(f"{path}: {rows} times, not rising; a segment has at least 2")
    if t[-1] - t[0] < SHORTEST_S:
        raise BadSource(f"{path}: {rows} times from {t[0]:g} to {t[-1]:g} s; they must rise: download it again")
    return t


def _rows(path: Path) -> int:
    """Length of a file, 0 where that cannot be told; `_array` says why."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, OSError, TypeError):
        return 0


def _check_poses(folder: Path, positions: Floats, orientations: Floats) -> None:
    """Raises BadSource for a place that is not on the Earth and for a quaternion without length."""
    height_m, length = np.linalg.norm(positions, axis=1), np.linalg.norm(orientations, axis=1)
    for name, rows, bad, why in (
        ("frame_positions", positions, (height_m < EARTH_M[0]) | (height_m > EARTH_M[1]), "not on the Earth"),
        ("frame_orientations", orientations, length < SHORTEST_QUATERNION, "no rotation"),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise BadSource(f"{folder / 'global_pose' / name}: row {row} is {rows[row]}: {why}")


def _pose(position: Floats, orientation: Floats) -> Pose:
    latitude, longitude = geodetic(position)
    return Pose(float(np.degrees(latitude)), float(np.degrees(longitude)), _heading_rad(position, orientation))


def geodetic(position: Floats) -> tuple[float, float]:
    """WGS-84 latitude and longitude, rad, of an ECEF position in m (Bowring 1976; error below 1e-9 rad)."""
    a, f = 6_378_137.0, 1 / 298.257_223_563
    b, e2 = a * (1 - f), f * (2 - f)
    x, y, z = position
    p = float(np.hypot(x, y))
    u = np.arctan2(z * a, p * b)
    latitude = np.arctan2(z + e2 / (1 - e2) * b * np.sin(u) ** 3, p - e2 * a * np.cos(u) ** 3)
    return float(latitude), float(np.arctan2(y, x))


def _heading_rad(position: Floats, orientation: Floats) -> float:
    """Of the device's forward axis, anticlockwise from east."""
    w, x, y, z = orientation / np.linalg.norm(orientation)
    forward = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    north, east = _level(position)
    return float(np.arctan2(forward @ north, forward @ east))


def _level(position: Floats) -> tuple[Floats, Floats]:
    """Unit vectors to the north and to the east, ECEF."""
    latitude, longitude = geodetic(position)
    north = [-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)]
    return np.array(north), np.array([-np.sin(longitude), np.cos(longitude), 0.0])
