"""A recorded drive as a world needs it: who was where, ten times a second, checked.

Positions are metres in one plane, headings rad, anticlockwise from x; times are seconds of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import savgol_filter

from simulation.arrays import Bools, Floats, wrap
from simulation.encounters import SIZE_M, Look
from simulation.roads import PERIOD_M, STATION_M, STATIONS

GRID_S = 0.1
"""A log is kept at the rate of physics."""
LONGEST_GAP_S = 0.5
"""Longer gaps are not bridged: another road user is away meanwhile, the vehicle's own log is refused."""
SHORTEST_S, SHORTEST_M = 6.0, 10.0
"""Of the vehicle's own drive: a PDM window and its history fit."""
BEFORE_M, AFTER_M = 60.0, 150.0
"""Straight road before the drive's first and beyond its last place, at least."""
LONGEST_M = PERIOD_M - BEFORE_M - AFTER_M
FASTEST_MPS = 90.0
BACKWARDS_M = 1.0
"""So much reversing may be noise."""
MOVING_MPS = 0.5
"""Slower motion does not tell a heading."""
SMOOTH_STATIONS = 4.0
"""Standard deviation, 2 m, over which a recorded path is smoothed to a road: 2 cm of noise then bend it by less
than 1/800 m, and an arc of 10 m is cut by 0.2 m."""
KINEMATICS_STEPS = 15
"""Window of the Savitzky-Golay filter that speeds and accelerations are read with (nuPlan, metrics/utils
state_extractors.py)."""


class BadLog(ValueError):
    """A recording that gives no world: names whose row or instant is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Track:
    """One road user as recorded, N instants: places of its box's centre, the vehicle's own of its rear axle."""

    name: str
    kind: Look
    time_s: Floats
    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    size_m: tuple[float, float] | None = None
    """Length and width; None: as usual for its kind."""


@dataclass(frozen=True, slots=True)
class Agents:
    """K others on the grid of a log, [K, T]; where `there` is false, the nearest known pose."""

    kinds: tuple[Look, ...]
    size_m: Floats
    """[K, 2], length and width."""
    there: Bools
    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    speed_mps: Floats
    metres: Floats
    """Driven since the first instant."""

    def __len__(self) -> int:
        return len(self.kinds)


@dataclass(frozen=True, slots=True)
class Log:
    """T instants, GRID_S apart, of a drive and of those around it."""

    name: str
    x_m: Floats
    """[T], rear axle, as recorded; the other columns are read off by a filter."""
    y_m: Floats
    heading_rad: Floats
    """Of the motion: a rear axle does not slip sideways."""
    speed_mps: Floats
    accel_mps2: Floats
    curvature_per_m: Floats
    agents: Agents
    reactive: bool
    """Others keep their paths and brake for who is in front, instead of being where they were."""

    @property
    def seconds(self) -> float:
        """From the first to the last instant."""
        return (len(self.x_m) - 1) * GRID_S

    def centre_line(self, lane_d_m: float) -> Floats:
        """The road whose lane, `lane_d_m` from its middle, the drive followed: x and y at every station of
        `Roads`, [STATIONS + 1, 2]. The drive begins about BEFORE_M along it."""
        lane = _even(self._extended(), STATION_M)
        lane = np.stack([gaussian_filter1d(lane[:, i], SMOOTH_STATIONS, mode="nearest") for i in range(2)], 1)
        tangent = np.gradient(lane, axis=0)
        left = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1)[:, None]
        return _even(lane - lane_d_m * left, STATION_M)[: STATIONS + 1]

    def _extended(self) -> Floats:
        """The driven path without standing, between straight ends."""
        path = np.stack([self.x_m, self.y_m], 1)
        passed = _metres(self.x_m, self.y_m)
        keep = np.concatenate([[0], 1 + np.flatnonzero(np.diff(np.floor(passed / STATION_M)))])
        ways = [np.array([np.cos(h), np.sin(h)]) for h in self.heading_rad[[0, -1]]]
        before = path[0] - ways[0] * np.arange(BEFORE_M, 0.0, -STATION_M)[:, None]
        after = path[keep[-1]] + ways[1] * np.arange(STATION_M, 1.2 * PERIOD_M, STATION_M)[:, None]
        return np.concatenate([before, path[keep], after])


def log_of(
    name: str,
    ego: Track,
    others: Sequence[Track] = (),
    *,
    from_s: float = 0.0,
    seconds: float = 20.0,
    reactive: bool = False,
) -> Log:
    """At most `seconds` of a recording from its second `from_s`, which counts from the vehicle's first instant.
    The origin moves to where the vehicle then is, as pictures are drawn with single precision. Raises BadLog."""
    for track in (ego, *others):
        check(track)
    _check_whole(ego)
    start = float(ego.time_s[0]) + from_s
    steps = int(min(seconds, float(ego.time_s[-1]) - start) / GRID_S + 1e-6)
    if steps * GRID_S < SHORTEST_S:
        raise BadLog(
            f"{name}: too short: {max(steps, 0) * GRID_S:.1f} s from second {from_s:g} of "
            f"{ego.time_s[-1] - ego.time_s[0]:.1f}; a world needs {SHORTEST_S:g}"
        )
    grid = np.asarray(start + np.arange(steps + 1) * GRID_S, np.float64)
    x, y = (np.interp(grid, ego.time_s, column) for column in (ego.x_m, ego.y_m))
    faces = np.interp(grid, ego.time_s, np.unwrap(ego.heading_rad))
    _check_way(name, x, y, faces)
    heading, speed, accel, curvature = _kinematics(x, y, faces)
    agents = _agents([track for track in others if _meets(track, grid)], grid, x[0], y[0])
    return Log(name, x - x[0], y - y[0], heading, speed, accel, curvature, agents, reactive)


def check(track: Track) -> None:
    """Raises BadLog for a track that no instant can be read from: shapes, values that are not finite, times that
    do not rise, places that jump."""
    columns = {name: getattr(track, name) for name in ("time_s", "x_m", "y_m", "heading_rad")}
    for name, column in columns.items():
        if column.shape != track.time_s.shape or column.ndim != 1 or len(column) < 2:
            raise BadLog(f"{track.name}: {name} is {column.shape}; each column needs the same 2 instants or more")
        if not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column)))
            raise BadLog(f"{track.name}: {name} at instant {row} is {column[row]}; leave out what is not known")
    passed = np.diff(track.time_s)
    if (passed <= 0).any():
        row = int(np.argmax(passed <= 0))
        raise BadLog(
            f"{track.name}: time goes from {track.time_s[row]:.3f} to {track.time_s[row + 1]:.3f} s at instant "
            f"{row + 1}; times must rise"
        )
    if track.size_m and not (np.isfinite(track.size_m).all() and min(track.size_m) > 0):
        raise BadLog(f"{track.name}: its box is {track.size_m} m; length and width must be above 0")
    pace = np.hypot(np.diff(track.x_m), np.diff(track.y_m)) / passed
    if (pace > FASTEST_MPS).any():
        row = int(np.argmax(pace))
        raise BadLog(
            f"{track.name}: jumps at {track.time_s[row]:.2f} s, as if at {pace[row]:.0f} m/s; cut the log there"
        )


def _check_whole(ego: Track) -> None:
    gaps = np.diff(ego.time_s)
    row = int(gaps.argmax())
    if gaps[row] > LONGEST_GAP_S:
        raise BadLog(
            f"{ego.name}: a gap of {gaps[row]:.2f} s after {ego.time_s[row] - ego.time_s[0]:.2f} s; "
            f"{LONGEST_GAP_S} is the longest that is bridged: choose a part without it (--from, --seconds)"
        )


def _check_way(name: str, x: Floats, y: Floats, heading: Floats) -> None:
    metres = float(_metres(x, y)[-1])
    if metres < SHORTEST_M:
        raise BadLog(f"{name}: too short: it drove {metres:.1f} m; a road needs {SHORTEST_M:g}")
    if metres > LONGEST_M:
        raise BadLog(f"{name}: it drove {metres:.0f} m; one world has {LONGEST_M:.0f}: choose fewer --seconds")
    forth = np.diff(x) * np.cos(heading[:-1]) + np.diff(y) * np.sin(heading[:-1])
    back = -float(np.minimum(forth, 0.0).sum())
    if back > BACKWARDS_M:
        raise BadLog(
            f"{name}: it drives {back:.1f} m backwards, or its headings are wrong; worlds only go forwards"
        )


def _kinematics(x: Floats, y: Floats, faces: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Heading, speed, acceleration and curvature of a rear axle that was there, of a vehicle that faced so."""
    dx, dy = _rate(x), _rate(y)
    moving = dx * np.cos(faces) + dy * np.sin(faces) > MOVING_MPS
    at = np.arange(len(x))
    heading = np.interp(at, at[moving], np.unwrap(np.arctan2(dy, dx)[moving]))
    speed = np.maximum(dx * np.cos(heading) + dy * np.sin(heading), 0.0)
    return heading, speed, _rate(speed), _rate(heading) / np.maximum(speed, 1.0)


def _rate(column: Floats) -> Floats:
    return np.asarray(savgol_filter(column, KINEMATICS_STEPS, 3, deriv=1, delta=GRID_S))


def _meets(track: Track, grid: Floats) -> bool:
    return bool(track.time_s[0] <= grid[-1] and track.time_s[-1] >= grid[0])


def _agents(tracks: Sequence[Track], grid: Floats, x0: float, y0: float) -> Agents:
    shape = (len(tracks), len(grid))
    there, columns = np.zeros(shape, bool), np.zeros((3, *shape))
    for row, track in enumerate(tracks):
        there[row] = _known(track.time_s, grid)
        for number, column in enumerate((track.x_m - x0, track.y_m - y0, np.unwrap(track.heading_rad))):
            columns[number, row] = np.interp(grid, track.time_s, column)
    x, y, heading = columns
    metres = np.concatenate([np.zeros((len(tracks), 1)), np.hypot(np.diff(x), np.diff(y)).cumsum(1)], 1)
    speed = np.gradient(metres, GRID_S, axis=1) if len(tracks) else metres
    sizes = np.array([track.size_m or SIZE_M[track.kind] for track in tracks]).reshape(-1, 2)
    return Agents(tuple(track.kind for track in tracks), sizes, there, x, y, wrap(heading), speed, metres)


def _known(time_s: Floats, grid: Floats) -> Bools:
    """Which instants lie within the track, and in none of its long gaps."""
    after = np.searchsorted(time_s, grid - 1e-6).clip(1, len(time_s) - 1)
    short = np.diff(time_s)[after - 1] <= LONGEST_GAP_S + 1e-6
    known = np.abs(time_s[after] - grid) < 1e-6
    return np.asarray((grid > time_s[0] - 1e-6) & (grid < time_s[-1] + 1e-6) & (short | known))


def _metres(x: Floats, y: Floats) -> Floats:
    """Along a path from its first point, as long as it."""
    return np.concatenate([[0.0], np.hypot(np.diff(x), np.diff(y)).cumsum()])


def _even(path: Floats, spacing_m: float) -> Floats:
    """The path's points so far apart along it."""
    passed = _metres(path[:, 0], path[:, 1])
    at = np.arange(0.0, passed[-1], spacing_m)
    return np.stack([np.interp(at, passed, path[:, 0]), np.interp(at, passed, path[:, 1])], 1)
