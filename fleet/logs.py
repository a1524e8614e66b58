"""Recordings that `fleet simulate replay` can drive in: a comma2k19 segment, a clip, a table of tracks."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from edge.sources.comma2k19 import EON, Comma2k19Drive
from registry.clip_frames import read_clip
from simulation.arrays import Floats
from simulation.encounters import SIZE_M
from simulation.logs import BadLog, Track
from simulation.scores.trace import CAR
from streams.contracts.odd import SPEED, YAW_RATE

EGO = "ego"
COLUMNS = ("track", "kind", "time_s", "x_m", "y_m", "heading_rad")
SIZES = ("length_m", "width_m")
"""Columns that may be left out."""
KINDS = tuple(kind for kind in SIZE_M if kind != "door")
KMH = 3.6
MOST_ROWS = 1_000_000
"""Of a table of tracks, which is read whole: 100 road users at 10 Hz for a quarter of an hour."""


def read_drive(path: Path) -> tuple[Track, list[Track]]:
    """The vehicle's own track and the others'. Raises BadLog, BadSource, Corrupt, OSError."""
    if path.is_dir():
        return _of_segment(path), []
    if path.suffix == ".mcap":
        return _of_clip(path), []
    tracks = read_tracks(path)
    own = [track for track in tracks if track.name == EGO]
    if not own:
        raise BadLog(f"{path}: there is no track named {EGO}; known: {', '.join(t.name for t in tracks[:8])}")
    return _at_axle(own[0]), [track for track in tracks if track.name != EGO]


def read_tracks(path: Path) -> list[Track]:
    """A CSV of COLUMNS, and SIZES where known, in any order: boxes' centres in m, in the plane of the drive.
    Raises BadLog, OSError."""
    with path.open(newline="") as file:
        try:
            rows = list(itertools.islice(csv.DictReader(file), MOST_ROWS + 1))
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadLog(f"{path}: no table of tracks ({error})") from error
    if len(rows) > MOST_ROWS:
        raise BadLog(f"{path}: more than {MOST_ROWS:,} rows; cut the table to the stretch of road that is driven")
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise BadLog(f"{path}: no column {missing[0]}, or no row; a table of tracks has {','.join(COLUMNS)}")
    by_name: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_name.setdefault(row["track"], []).append(number)
    return [_track(path, name, rows, numbers) for name, numbers in by_name.items()]


def _track(path: Path, name: str, rows: Sequence[dict[str, str]], numbers: Sequence[int]) -> Track:
    said = rows[numbers[0]]["kind"]
    kind = next((known for known in KINDS if known == said), None)
    if kind is None:
        raise BadLog(f"{path}:{numbers[0] + 2}: kind {said!r} is none of {', '.join(KINDS)}")
    time_s, x, y, heading = (_column(path, column, rows, numbers) for column in COLUMNS[2:])
    size = [float(_column(path, column, rows, numbers[:1])[0]) for column in SIZES if rows[numbers[0]].get(column)]
    return Track(name, kind, time_s, x, y, heading, (size[0], size[1]) if len(size) == len(SIZES) else None)


def _column(path: Path, name: str, rows: Sequence[dict[str, str]], numbers: Sequence[int]) -> Floats:
    out = np.empty(len(numbers))
    for at, number in enumerate(numbers):
        try:
            out[at] = float(rows[number][name])
        except (TypeError, ValueError) as error:
            raise BadLog(f"{path}:{number + 2}: {name} is {rows[number][name]!r}, no number") from error
    return out


def _at_axle(track: Track) -> Track:
    back, heading = CAR.centre_m, track.heading_rad
    return replace(track, x_m=track.x_m - back * np.cos(heading), y_m=track.y_m - back * np.sin(heading))


def _of_segment(folder: Path) -> Track:
    """The device looks through the windscreen: EON's place ahead of the rear axle."""
    time_s, east_m, north_m, heading = Comma2k19Drive(folder).path()
    ahead = EON.cameras[0].x_m
    return Track(
        str(folder), "car", time_s, east_m - ahead * np.cos(heading), north_m - ahead * np.sin(heading), heading
    )


def _of_clip(path: Path) -> Track:
    """Dead reckoning from speed and yaw rate: a clip tells no places, so that it tells no homes either."""
    frames = read_clip(path.read_bytes(), path.stem)
    missing = [name for name in (SPEED, YAW_RATE) if name not in frames.signals]
    if missing:
        raise BadLog(f"{path}: the clip has no {missing[0]}: where it went cannot be told")
    time_s = (frames.times_ns - frames.times_ns[0]) / 1e9
    speed, turn = frames.signals[SPEED] / KMH, np.radians(frames.signals[YAW_RATE])
    x, y, heading = np.zeros((3, len(time_s)))
    for (a, b), passed in zip(pairwise(range(len(time_s))), np.diff(time_s), strict=True):
        heading[b] = heading[a] + (turn[a] + turn[b]) / 2 * passed
        metres, course = (speed[a] + speed[b]) / 2 * passed, (heading[a] + heading[b]) / 2
        x[b], y[b] = x[a] + metres * np.cos(course), y[a] + metres * np.sin(course)
    return Track(str(path), "car", time_s, x, y, heading)
